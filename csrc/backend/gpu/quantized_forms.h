// Quantized forms of rows of activations, which products multiply. The kernels that compute rows
// quantize them on the way; whoever multiplies rows whose form is not known quantizes them first.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "backend/device.h"
#include "backend/gpu/gpu_objects.h"

namespace gemtp::gpu {

class QuantizedForms {
 public:
  /// Rows behind the last one that a panel of a product may read.
  static constexpr int64_t kRoom = 32;
  /// An operation reads one form and makes at most three.
  static constexpr int64_t kForms = 4;
  /// Bytes of a block of 32, at most: on devices whose quants are floats.
  static constexpr int64_t kMostBytes = 16 + 32 * 4;

  explicit QuantizedForms(std::shared_ptr<GpuDevice> device) : device_(std::move(device)) {}

  /// Returns the form of x, [m, n]; none if it is not known.
  QuantizedRows find(Device<const float> x, int64_t m, int64_t n) {
    for (Form& form : forms_) {
      const int64_t at = (position(x) - position(form.x)) / 4;
      if (form.m == 0 || form.n != n || at < 0 || at % n != 0 || at / n + m > form.m) continue;
      form.used = ++clock_;
      return form.rows + at / 32 * block_bytes();
    }
    return {};
  }

  /// Returns where the kernel that computes x, [m, n], puts the form; none if n does not allow one.
  /// Forms that find() or add() returned last stay valid.
  QuantizedRows add(Device<const float> x, int64_t m, int64_t n, GpuScratch::Outgrown& outgrown) {
    forget(x, m * n);
    if (n % 32 != 0) return {};
    Form& form = *std::min_element(forms_.begin(), forms_.end(),
                                   [](const Form& a, const Form& b) { return a.used < b.used; });
    form.rows =
        QuantizedRows(form.scratch.ensure(device_, (m + kRoom) * n / 32 * block_bytes(), outgrown));
    form.x = x;
    form.m = m;
    form.n = n;
    form.used = ++clock_;
    return form.rows;
  }

  /// The n floats at x change.
  void forget(Device<const float> x, int64_t n) {
    for (Form& form : forms_)
      if (position(x) < position(form.x) + 4 * form.m * form.n &&
          position(form.x) < position(x) + 4 * n)
        form.m = 0;
  }
  void forget_all() {
    for (Form& form : forms_) form.m = 0;
  }

  /// Adds the memory of all forms.
  void append_to(std::vector<std::shared_ptr<void>>& memory) const {
    for (const Form& form : forms_) memory.push_back(form.scratch.memory());
  }

  int64_t block_bytes() const { return 16 + 32 * device_->quant_bytes(); }

 private:
  struct Form {
    Device<const float> x;
    int64_t m = 0, n = 0;  // of x; m is 0 if there is no form
    GpuScratch scratch;
    QuantizedRows rows;
    uint64_t used = 0;
  };

  static int64_t position(Device<const float> x) {
    return static_cast<int64_t>(reinterpret_cast<intptr_t>(x.address()));
  }

  const std::shared_ptr<GpuDevice> device_;
  std::array<Form, kForms> forms_;
  uint64_t clock_ = 0;
};

}  // namespace gemtp::gpu
