// Sums of squares of the inputs of a target's matrices over a text, by column: the content of an
// importance matrix.
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
  /// The sums of one tensor of the file.
  struct Entry {
    std::vector<int64_t> counts;  // [matrices]: rows multiplied with each; one matrix per expert
    std::vector<double> squares;  // [matrices, cols]
  };

  /// Opens a target. context: tokens of the longest text; other options of a context are ignored.
  /// Throws like OpenedModel().
  ActivationSums(const std::string& path, int64_t context, const EngineOptions& options = {});

  /// Runs a text through all layers of the model for all tokens. Throws Error{kArgument} for ids
  /// outside the vocabulary and for a text that is empty or too long.
  void add(const std::vector<int32_t>& ids);

  /// The sums by tensor name, for tensors of the layers. A tensor that holds several matrices with
  /// the same input (q, k and v in one) counts the input once.
  const std::map<std::string, Entry>& entries() const { return entries_; }
  /// Null for a file without one.
  const Tokenizer* tokenizer() const { return model_->tokenizer(); }

 private:
  static std::unique_ptr<OpenedModel> open(const std::string& path, int64_t context,
                                           EngineOptions options);
  void observe(const WeightSource& source, const float* x, int64_t stride, int64_t m);

  const std::unique_ptr<OpenedModel> model_;
  const TargetOutputs outputs_;  // hidden: [context, hidden]
  std::map<std::string, Entry> entries_;
};

}  // namespace gemtp
