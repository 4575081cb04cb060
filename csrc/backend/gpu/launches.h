// Launches of kernels, with what they share in a pass: the quantized forms of rows and memory for
// results that only the next kernels read.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "backend/gpu/gpu_objects.h"
#include "backend/gpu/quantized_forms.h"

namespace gemtp::gpu {

enum class Room { kUps, kLogits, kPartBest, kBest, kScores, kMaxima, kChosen, kCount };

class Launches {
 public:
  explicit Launches(std::shared_ptr<GpuDevice> device)
      : device_(std::move(device)), forms_(device_) {}

  template <class Arguments>
  void launch(const std::string& kernel, int64_t blocks, int64_t rows, const Arguments& a) {
    if (blocks > 0 && rows > 0)
      device_->launch(kernel, blocks, rows, &a, static_cast<int64_t>(sizeof a));
  }
  void elements(const char* kernel, ElementsArguments a, int64_t n) {
    a.n = narrow(n);
    launch(kernel, parts_of(n, 256), 1, a);
  }

  /// Room for n of them, with what was there.
  template <class T>
  Global<T> scratch(Room which, int64_t n) {
    const int64_t bytes = n * static_cast<int64_t>(sizeof(T));
    return Global<T>(scratch_[static_cast<size_t>(which)].ensure(device_, bytes, outgrown_));
  }

  /// The n floats at y, which the next launch writes.
  Global<float> written(Device<float> y, int64_t n) {
    forms_.forget(y, n);
    return Global<float>(number(y));
  }

  /// Where the next launch, which computes x, [m, n], puts its form; none if n does not allow one.
  QuantizedRows add_form(Device<const float> x, int64_t m, int64_t n) {
    return forms_.add(x, m, n, outgrown_);
  }
  /// The form of x, [m, n], which is quantized if it has none.
  QuantizedRows form_of(Device<const float> x, int64_t m, int64_t n) {
    QuantizedRows form = forms_.find(x, m, n);
    if (!form) {
      form = add_form(x, m, n);
      elements("quantize", {global(x), {}, 0, 0, {}, form}, m * n);
    }
    return form;
  }
  int64_t form_block_bytes() const { return forms_.block_bytes(); }
  void forget_form(Device<const float> x, int64_t n) { forms_.forget(x, n); }
  void forget_forms() { forms_.forget_all(); }

  /// Returns the memory that launches since the pass began use, besides their arguments'.
  std::vector<std::shared_ptr<void>> take_memory() {
    std::vector<std::shared_ptr<void>> memory = std::exchange(outgrown_, {});
    forms_.append_to(memory);
    for (const GpuScratch& s : scratch_) memory.push_back(s.memory());
    return memory;
  }
  /// The pass has ended.
  void release_outgrown() { outgrown_.clear(); }

 private:
  const std::shared_ptr<GpuDevice> device_;
  QuantizedForms forms_;
  std::array<GpuScratch, static_cast<size_t>(Room::kCount)> scratch_;
  GpuScratch::Outgrown outgrown_;  // since the pass began
};

}  // namespace gemtp::gpu
