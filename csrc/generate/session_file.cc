// The format of a session file:
//   "GEMTPSES", version u32, K/V in f16 u32, fingerprint u64, tokens i64, of them in the cache i64,
//   oldest position of the sliding layers i64, the tokens i32 each, the cache's blocks (KvCache),
//   FNV-1a of all of it u64; numbers in little endian.
#include <bit>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "base/hash.h"
#include "base/input_file.h"
#include "base/whole_file.h"
#include "generate/session.h"

namespace gemtp {
namespace {

static_assert(std::endian::native == std::endian::little);

struct Header {
  char magic[8] = {'G', 'E', 'M', 'T', 'P', 'S', 'E', 'S'};
  uint32_t version = 2;  // of format and arithmetic (kernels.h); 1: gemtp 0.1
  uint32_t kv_f16 = 1;
  uint64_t fingerprint = 0;
  int64_t tokens = 0, cached = 0, oldest = 0;
};
static_assert(sizeof(Header) == 48);

// The bytes of a session file, and their hash.
class File {
 public:
  explicit File(const std::string& path) : file_(InputFile::open(path)) {}

  const std::string& name() const { return file_->quoted_path(); }
  uint64_t hash() const { return hash_.value(); }

  void read(void* data, size_t n) {
    if (n > file_->size() - at_)
      throw Error(
          ErrorKind::kFile,
          format("%s ends too early: it is cut off; save the session again", name().c_str()));
    file_->read(at_, n, data);
    hash_.add(data, n);
    at_ += n;
  }
  bool at_end() const { return at_ == file_->size(); }

 private:
  std::unique_ptr<InputFile> file_;
  uint64_t at_ = 0;
  Hash64 hash_;
};

[[noreturn]] void throw_damaged(const File& file) {
  throw Error(ErrorKind::kFile,
              format("%s is not a session file or is damaged; save the session again",
                     file.name().c_str()));
}

}  // namespace

void Session::save(const std::string& path) const {
  WholeFile file(path);
  Hash64 hash;
  const auto put = [&](const void* data, size_t n) {
    hash.add(data, n);
    file.write(data, n);
  };
  Header h;
  h.kv_f16 = engine_->model().options().kv_f16;
  h.fingerprint = engine_->model().fingerprint();
  h.tokens = static_cast<int64_t>(tokens_.size());
  h.cached = cached();
  h.oldest = h.cached ? sequence()->kv().oldest() : 0;
  put(&h, sizeof h);
  put(tokens_.data(), tokens_.size() * sizeof(int32_t));
  if (h.cached)
    sequence()->kv().write(
        [&](const uint8_t* data, int64_t bytes) { put(data, static_cast<size_t>(bytes)); });
  const uint64_t sum = hash.value();
  file.write(&sum, sizeof sum);
  file.complete();
}

std::unique_ptr<Session> Session::restore(std::shared_ptr<Engine> engine, const std::string& path) {
  File file(path);
  Header h;
  file.read(&h, sizeof h);
  if (std::memcmp(h.magic, Header().magic, sizeof h.magic) != 0) throw_damaged(file);
  if (h.version != Header().version)
    throw Error(ErrorKind::kFile,
                format("%s has version %u, whose keys and values come from other arithmetic than "
                       "this build's (version %u); give its text to a new session and save that",
                       file.name().c_str(), h.version, Header().version));
  const bool f16 = engine->model().options().kv_f16;
  if (h.fingerprint != engine->model().fingerprint())
    throw Error(ErrorKind::kModel,
                format("%s was saved with another model than %s; open that one, or begin anew",
                       file.name().c_str(), engine->model().file().quoted_path().c_str()));
  if ((h.kv_f16 != 0) != f16)
    throw Error(ErrorKind::kModel,
                format("%s holds K/V in %s; open the model with the same type of K/V",
                       file.name().c_str(), h.kv_f16 ? "f16" : "f32"));
  if (h.tokens < 0 || h.cached < 0 || h.cached > h.tokens) throw_damaged(file);
  if (h.tokens > engine->model().context())
    throw Error(ErrorKind::kContext,
                format("%s holds %lld tokens and the context %lld; open the model with a larger "
                       "context",
                       file.name().c_str(), static_cast<long long>(h.tokens),
                       static_cast<long long>(engine->model().context())));
  auto out = std::make_unique<Session>(std::move(engine));
  out->tokens_.resize(static_cast<size_t>(h.tokens));
  file.read(out->tokens_.data(), out->tokens_.size() * sizeof(int32_t));
  for (const int32_t id : out->tokens_)
    if (id < 0 || id >= out->engine_->model().config().vocab) throw_damaged(file);
  if (h.cached) {
    out->sequence_ = out->engine_->sequences().make();
    if (!out->sequence_->kv().plausible(h.cached, h.oldest)) throw_damaged(file);
    out->sequence_->read(
        {out->tokens_.begin(), out->tokens_.begin() + h.cached}, h.oldest,
        [&](uint8_t* data, int64_t bytes) { file.read(data, static_cast<size_t>(bytes)); });
  }
  const uint64_t hash = file.hash();
  uint64_t stored = 0;
  file.read(&stored, sizeof stored);
  if (stored != hash || !file.at_end()) {
    out->sequence_.reset();  // must not be reused
    throw_damaged(file);
  }
  return out;
}

}  // namespace gemtp
