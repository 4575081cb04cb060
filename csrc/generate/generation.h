// One generation: prompt in, tokens and text out, a step at a time.
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

/// One token as it leaves the generation. `text` is what became certain with it: valid UTF-8,
/// possibly empty (an unfinished character, or text that may yet turn out to be a stop string).
struct Emitted {
  int32_t id = -1;
  DraftSource source = DraftSource::kNone;  // whose guess it was
  std::string text;
  Logprobs logprobs;  // of the target's own distribution, whatever the sampling parameters
};

/// For one thread at a time, but for cancel(). Generations of one engine that are stepped on
/// several threads share passes (scheduler.h).
class Generation : private Participant {
 public:
  /// Validates everything; nothing has run yet. sequence: where K/V of the prompt's first tokens
  /// may be, taken only if nothing is wrong; null: the engine gives one. Error{kArgument, kContext,
  /// kModel, kMemory}.
  Generation(std::shared_ptr<Engine> engine, std::vector<int32_t> prompt, GenerationParams params,
             std::unique_ptr<Sequence>&& sequence = nullptr);
  ~Generation() override;  // hands the sequence to the engine, also half-way

  /// One chunk of prefill or one round. The end token that finished the generation is not emitted.
  /// Text still held back at the end comes with the last token, or in tail().
  /// After an error every step gives the same one. The first one waits, if that is wanted, for a
  /// sequence: `poll` as for SequencePool::Guest::take().
  std::vector<Emitted> step(const std::function<void()>& poll = {});
  /// Ends it, from any thread: a step that is running gives Error{kCancelled} within milliseconds,
  /// also in the middle of a prompt, otherwise the next one does. K/V of what had been run stays.
  void cancel();
  bool done() const { return finish_ != FinishReason::kNone; }
  /// Neither done nor failed.
  bool under_way() const { return !done() && !failure_; }
  FinishReason finish_reason() const { return finish_; }
  /// Text that was held back when the generation ended without a further token to carry it.
  const std::string& tail() const { return tail_; }
  const GenerationStats& stats() const { return stats_; }
  /// Tokens of the prompt that have been run.
  int64_t prompt_done() const { return prompt_done_; }
  /// After the latest round; empty for a fixed depth.
  DepthReport depth_report() const {
    return speculation_.depth_report(stats_.prompt_tokens + stats_.tokens);
  }
  /// K/V of the prompt and of the tokens chosen, but for the last of them; null while it waits for
  /// a sequence, once released, and for max_tokens 0. Not during a step.
  const Sequence* sequence() const { return state_.sequence.get(); }
  /// A generation that was under way is cancelled by that.
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
  std::optional<SequencePool::Guest> guest_;  // if it waits
  DecodeState state_;                         // its sequence: as sequence()
  StopStrings stop_;
  Speculation speculation_;
  std::unique_ptr<StreamDecoder> decoder_;
  bool prefilled_ = false;
  int64_t prompt_done_ = 0;
  SequenceRows rows_;               // of the pass
  Proposal proposal_;               // they are its rows, behind the prompt
  Round round_;                     // of the latest pass
  std::vector<Logprobs> logprobs_;  // of its tokens, if they are wanted
  std::exception_ptr failure_;
  std::string tail_;
  FinishReason finish_ = FinishReason::kNone;
  GenerationStats stats_;
};

}  // namespace gemtp
