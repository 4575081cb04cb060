#include "backend/cpu/measuring_storage.h"

#include <algorithm>
#include <limits>

#include "backend/cpu/cpu_routing.h"
#include "backend/cpu/packed_form.h"

namespace gemtp {
namespace {

// Saturates, because a hostile file may claim sizes whose sum exceeds every integer.
int64_t saturate(double bytes) {
  constexpr auto kMost = std::numeric_limits<int64_t>::max();
  return bytes < static_cast<double>(kMost) ? static_cast<int64_t>(bytes) : kMost;
}

class NoKv : public KvLayer {
 public:
  int64_t block_bytes() const override { return 0; }
  void get_block(int64_t, uint8_t*) const override {}
  void put_block(int64_t, const uint8_t*) override {}
  void keep_slots(uint8_t*, int64_t, int64_t) const override {}
};

void add(int64_t* sum, double bytes) { *sum = saturate(static_cast<double>(*sum) + bytes); }

}  // namespace

Buffer MeasuringStorage::alloc(int64_t n) {
  add(&buffers_, static_cast<double>(n) * sizeof(float));
  return {};
}

MirroredBytes MeasuringStorage::mirrored(int64_t bytes) {
  add(&buffers_, static_cast<double>(bytes));
  add(&mirrored_, static_cast<double>(bytes));
  return {};
}

std::unique_ptr<Matrix> MeasuringStorage::load_matrix(const WeightSource& source,
                                                      const std::vector<int32_t>* rows,
                                                      const LoadProgress&) {
  auto m = std::make_unique<Matrix>();
  m->type = source.type;
  m->rows = rows ? static_cast<int64_t>(rows->size()) : source.rows;
  m->cols = source.cols;
  m->bytes = (m->rows + GEMTP_TILE - 1) / GEMTP_TILE * tile_bytes(m->type, m->cols);
  add(&matrices_, static_cast<double>(m->bytes));
  max_cols_ = std::max(max_cols_, m->cols);
  formats_.insert(packed_form(m->type).format);
  return m;
}

AlignedBytes MeasuringStorage::read(const WeightSource&) { return nullptr; }

std::unique_ptr<KvLayer> MeasuringStorage::make_kv(int64_t kv_heads, int64_t head_dim,
                                                   int64_t capacity, bool f16) {
  auto kv = std::make_unique<NoKv>();
  kv->kv_heads = kv_heads;
  kv->head_dim = head_dim;
  kv->capacity = capacity;
  const double bytes = 2.0 * static_cast<double>(kv_heads) * static_cast<double>(head_dim) *
                       static_cast<double>(capacity) * (f16 ? 2 : 4);
  kv->bytes = saturate(bytes);
  add(&kv_, bytes);
  return kv;
}

std::unique_ptr<Routing> MeasuringStorage::make_routing(const RoutingSizes& sizes) {
  return std::make_unique<CpuRouting>(sizes, *this);
}

}  // namespace gemtp
