#include "backend/gpu/products.h"

#include <algorithm>
#include <string>
#include <vector>

#include "backend/gpu/format_names.h"

namespace gemtp::gpu {
namespace {

bool go_together(const MatmulJob& a, const MatmulJob& b) {
  return a.x == b.x && a.m == b.m && of(a.w).format == of(b.w).format && a.w->cols == b.w->cols;
}

std::string name_of(const GpuMatrix& w) { return std::string("matmul_") + kFormatNames[w.format]; }

Global<const SetMember> members_of(const MatrixSet& set) {
  return static_cast<const GpuMatrixSet&>(set).members();
}

}  // namespace

PackedMatrix packed(const Matrix& w) {
  PackedMatrix p = of(&w).packed;
  p.scale = w.scale;
  return p;
}

void Products::multiply(const std::vector<MatmulJob>& jobs) {
  // Those that multiply the same rows, in one format, go together, up to 4.
  for (size_t i = 0; i < jobs.size();) {
    size_t end = i + 1;
    while (end < jobs.size() && end - i < 4 && go_together(jobs[i], jobs[end])) ++end;
    MatmulArguments a = product(*jobs[i].w, jobs[i].x, jobs[i].x_stride, jobs[i].m);
    for (size_t j = i; j < end; ++j) {
      const MatmulJob& job = jobs[j];
      GEMTP_ASSERT(job.y_stride == job.w->rows || job.m == 1);
      a.matrix[j - i] = packed(*job.w);
      a.y[j - i] = launches_.written(job.y, job.m * job.w->rows);
      a.strips += narrow(of(job.w).strips());
    }
    run(of(jobs[i].w), a, "");
    i = end;
  }
}

void Products::multiply_gated(const std::vector<GatedJob>& jobs) {
  for (const GatedJob& job : jobs) {
    GEMTP_ASSERT(job.y_stride == job.gate->rows || job.m == 1);
    const int64_t n = job.gate->rows;
    if (job.up && (job.m > 16 || job.gate->type != job.up->type)) {
      const uint64_t room = launches_.scratch<float>(Room::kUps, job.m * n).address;
      const Device<float> ups(reinterpret_cast<float*>(room));
      multiply({{job.gate, job.x, job.x_stride, job.m, job.y, n},
                {job.up, job.x, job.x_stride, job.m, ups, n}});
      const Global<float> y = launches_.written(job.y, job.m * n);
      const QuantizedRows form = launches_.add_form(job.y, job.m, n);
      launches_.elements("gelu_mul", {y, global(Device<const float>(ups)), 0, 0, y, form},
                         job.m * n);
      continue;
    }
    MatmulArguments a = product(*job.gate, job.x, job.x_stride, job.m);
    a.matrix[0] = packed(*job.gate);
    if (job.up) a.matrix[1] = packed(*job.up);
    a.factor = global(job.factor);
    a.factor_stride = job.factor_stride;
    a.y[0] = launches_.written(job.y, job.m * n);
    a.quantized = launches_.add_form(job.y, job.m, n);
    a.strips = narrow(of(job.gate).strips());
    run(of(job.gate), a, job.up ? "_gated" : "_factor");
  }
}

void Products::multiply_listed(const MatrixSet& set, Device<const float> x,
                               Global<const MatrixRows> list, int64_t count, Global<float> y) {
  const GpuMatrix& any = first_of(set);
  MatmulArguments a = product(any, x, any.cols, 1);
  a.matrix[0] = packed(any);
  a.list = list;
  a.set[0] = members_of(set);
  a.y[0] = y;
  a.strips = narrow(count * any.strips());
  run(any, a, "");
}

void Products::gather_input(const GpuRouting& r, const GpuMatrix& gate, Device<const float> x,
                            int64_t m) {
  GatherArguments g{};
  if (gate.quantized()) {
    g.from = launches_.form_of(x, m, r.sizes.hidden);
    g.to = QuantizedRows(r.in);
  } else {
    g.x = global(x);
    g.y = Global<float>(r.in);
  }
  gather(r, g, m);
}

void Products::multiply_gated(const GpuRouting& r, const ExpertMatrices& w, int64_t m) {
  const int64_t places = m * r.sizes.used;
  const bool quantized = first_of(*w.down).quantized();
  const QuantizedRows to = quantized ? QuantizedRows(r.gated) : QuantizedRows();
  const Global<float> floats = quantized ? r.gated_floats : Global<float>(r.gated);
  MatmulArguments a = product_of_places(r, *w.gate, r.in, m);
  a.y[0] = floats;
  if (first_of(*w.gate).type == first_of(*w.up).type) {
    a.matrix[1] = packed(first_of(*w.up));
    a.set[1] = members_of(*w.up);
    a.quantized = to;
    run_listed(*w.gate, a, places, "_gated");
    return;
  }
  run_listed(*w.gate, a, places, "");
  MatmulArguments up = product_of_places(r, *w.up, r.in, m);
  up.y[0] = launches_.scratch<float>(Room::kUps, places * r.sizes.ffn);
  run_listed(*w.up, up, places, "");
  launches_.elements("gelu_mul", {floats, up.y[0], 0, 0, floats, to}, places * r.sizes.ffn);
}

void Products::multiply_down(const GpuRouting& r, const MatrixSet& down, int64_t m) {
  MatmulArguments a = product_of_places(r, down, r.gated, m);
  a.y[0] = r.out;
  run_listed(down, a, m * r.sizes.used, "");
}

void Products::gather(const GpuRouting& r, GatherArguments g, int64_t m) {
  g.rows = r.route.place_row;
  g.n = narrow(r.sizes.hidden);
  launches_.launch("gather", parts_of(g.n, 256), m * r.sizes.used, g);
}

// With the rows as the kernels want them.
MatmulArguments Products::product(const Matrix& w, Device<const float> x, int64_t x_stride,
                                  int64_t m) {
  GEMTP_ASSERT(x_stride == w.cols || m == 1);
  MatmulArguments a{};
  a.k = narrow(w.cols);
  a.m = narrow(m);
  if (of(&w).quantized())
    a.x = launches_.form_of(x, m, w.cols);
  else
    a.x_float = global(x);
  return a;
}

MatmulArguments Products::product_of_places(const GpuRouting& r, const MatrixSet& set, uint64_t x,
                                            int64_t m) {
  const GpuMatrix& any = first_of(set);
  MatmulArguments a{};
  if (any.quantized())
    a.x = QuantizedRows(x);
  else
    a.x_float = Global<const float>(x);
  a.k = narrow(any.cols);
  a.m = narrow(m);
  a.matrix[0] = packed(any);
  a.list = r.route.list;
  a.set[0] = members_of(set);
  a.x_step = 1;
  return a;
}

void Products::run(const GpuMatrix& w, const MatmulArguments& a, const char* activation) {
  if (w.quantized() && a.m > 16 && !*activation)
    launches_.launch(name_of(w) + "_many", parts_of(a.strips, 4), parts_of(a.m, kManyRows), a);
  else
    run_panels(w, a, activation);
}

void Products::run_listed(const MatrixSet& set, MatmulArguments& a, int64_t places,
                          const char* activation) {
  a.strips = narrow(first_of(set).strips() * std::min(places, set.size()));
  run_panels(first_of(set), a, activation);
}

// In panels of at most 16 rows.
void Products::run_panels(const GpuMatrix& w, const MatmulArguments& a, const char* activation) {
  int64_t panel = 1;
  while (panel < a.m && panel < 16) panel *= w.quantized() ? 2 : 4;
  launches_.launch(name_of(w) + "_" + std::to_string(panel) + activation, a.strips,
                   parts_of(a.m, panel), a);
}

}  // namespace gemtp::gpu
