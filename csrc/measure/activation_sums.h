// What the columns of a target's matrices are multiplied by, over a text: the sums of squares that
// an importance matrix consists of.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/opened_model.h"

namespace gemtp {

class ActivationSums {
 public:
  /// Of one tensor in the file.
  struct Entry {
    std::vector<int64_t> counts;  // [matrices]: rows that met each; experts are the matrices
    std::vector<double> squares;  // [matrices, cols]
  };

  /// Opens a target. threads: 0 for the default; context: tokens of the longest text. Errors as
  /// OpenedModel().
  ActivationSums(const std::string& path, int threads, int64_t context);

  /// Runs a text through the model, all layers of all tokens. Error{kArgument} for ids outside the
  /// vocabulary and for a text that is empty or too long.
  void add(const std::vector<int32_t>& ids);

  /// By the tensor's name, those of the layers. A tensor whose rows are several matrices with one
  /// input (q, k and v in one) counts it once.
  const std::map<std::string, Entry>& entries() const { return entries_; }
  /// Null for a file without one.
  const Tokenizer* tokenizer() const { return model_->tokenizer(); }

 private:
  static std::unique_ptr<OpenedModel> open(const std::string& path, int threads, int64_t context);
  void observe(const WeightSource& source, const float* x, int64_t stride, int64_t m);

  const std::unique_ptr<OpenedModel> model_;
  const TargetOutputs outputs_;  // hidden: [context]
  std::map<std::string, Entry> entries_;
};

}  // namespace gemtp
