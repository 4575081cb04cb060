// A generation: prompt in, tokens and text out, step by step.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/scheduler.h"
#include "generate/generation_params.h"
#include "generate/generation_stats.h"
#include "generate/speculative.h"
#include "text/stop_strings.h"

namespace gemtp {

enum class FinishReason { kNone, kStop, kLength, kContext, kCancelled };
const char* finish_reason_name(FinishReason reason);

/// An emitted token. `text` is the text completed by the token: valid UTF-8, possibly empty (after
/// an unfinished character, or text that may yet become a stop string).
struct Emitted {
  int32_t id = -1;
  DraftSource source = DraftSource::kNone;  // the source that proposed the token
  std::string text;
  Logprobs logprobs;  // of the target's distribution, before sampling parameters
};

/// To be used by one thread at a time, except for cancel(). Generations of one engine that are
/// stepped on several threads share passes (scheduler.h).
class Generation : private Participant {
 public:
  /// Validates all arguments and runs nothing. sequence: may hold K/V of the prompt's first tokens;
  /// it is moved from only if the constructor succeeds; null: the engine's pool provides one.
  /// Throws Error{kArgument, kContext, kModel, kMemory}.
  Generation(std::shared_ptr<Engine> engine, std::vector<int32_t> prompt, GenerationParams params,
             std::unique_ptr<Sequence>&& sequence = nullptr);
  ~Generation() override;  // gives the sequence back to the pool

  /// Runs one chunk of prefill or one round, and returns the tokens it yields. The end token that
  /// finishes the generation is not emitted. Text held back at the end comes with the last token,
  /// or in tail().
  /// After an error every step throws the same error. With GenerationParams::wait the first step
  /// waits for a sequence; poll: as for SequencePool::Guest::take().
  std::vector<Emitted> step(const std::function<void()>& poll = {});
  /// Ends the generation. May be called from any thread. A running step throws Error{kCancelled}
  /// within milliseconds, even in the middle of a prompt; otherwise the next step does. K/V
  /// computed before stay.
  void cancel();
  bool done() const { return finish_ != FinishReason::kNone; }
  /// Whether it is neither done nor failed.
  bool under_way() const { return !done() && !failure_; }
  FinishReason finish_reason() const { return finish_; }
  /// Text that was held back and remained when the generation ended without another token.
  const std::string& tail() const { return tail_; }
  const GenerationStats& stats() const { return stats_; }
  /// Number of prompt tokens that have been run.
  int64_t prompt_done() const { return prompt_done_; }
  /// The report after the latest round; empty for a fixed depth.
  DepthReport depth_report() const {
    return speculation_.depth_report(stats_.prompt_tokens + stats_.tokens);
  }
  /// The sequence with K/V of the prompt and of all chosen tokens but the last. Null while waiting
  /// for a sequence, after release(), and for max_tokens 0. Must not be called during a step.
  const Sequence* sequence() const { return state_.sequence.get(); }
  /// Returns the sequence; cancels a generation that is under way.
  std::unique_ptr<Sequence> release();

 private:
  const OpenedModel& model() const { return engine_->model(); }
  void begin_with(std::unique_ptr<Sequence> sequence);
  bool prefilling() const override { return !prefilled_; }
  HeadOutput head() const {
    return params_.logprobs >= 0 ? HeadOutput::kLogits
                                 : head_output(state_.chooser, state_.constraint != nullptr);
  }
  SequenceRows prepare(const Allotment& allotment) override;
  double expected_tokens() const override { return prefilled_ ? proposal_.expected_tokens : 0; }
  double context() const override { return model().kv_share(state_.sequence->length()); }
  void complete(const Outputs& outputs, int64_t row, int64_t rows, double seconds) override;
  void take_logprobs(const Outputs& outputs, int64_t row);
  void count(const Round& round);
  void emit(const Round& round, std::vector<Emitted>& out);
  std::string release_text(const std::string& piece);
  int draft_limit() const;

  std::shared_ptr<Engine> engine_;
  std::vector<int32_t> prompt_;
  GenerationParams params_;
  std::optional<SequencePool::Guest> guest_;  // with GenerationParams::wait
  DecodeState state_;                         // with the sequence that sequence() returns
  StopStrings stop_;
  Speculation speculation_;
  std::unique_ptr<StreamDecoder> decoder_;
  bool prefilled_ = false;
  int64_t prompt_done_ = 0;
  SequenceRows rows_;               // rows of the pass
  Proposal proposal_;               // the rows of a pass after the prompt
  Round round_;                     // result of the latest pass
  std::vector<Logprobs> logprobs_;  // of the round's tokens, if requested
  std::exception_ptr failure_;
  std::string tail_;
  FinishReason finish_ = FinishReason::kNone;
  GenerationStats stats_;
};

}  // namespace gemtp
