// A text that goes on: tokens so far, and K/V of most of them. Tokens are put behind it or
// generated there; it can be cut back, split in two, kept in a file. What is generated depends on
// its tokens alone, not on how they came about.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "generate/generation.h"

namespace gemtp {

/// For one thread at a time, but for cancel().
class Session {
 public:
  explicit Session(std::shared_ptr<Engine> engine) : engine_(std::move(engine)) {}
  ~Session();  // its K/V serves later prompts that begin alike

  /// Everything so far: what was put there and what was generated.
  const std::vector<int32_t>& tokens() const { return tokens_; }
  /// Of them, the first that need not be run again.
  int64_t cached() const;
  const std::shared_ptr<Engine>& engine() const { return engine_; }

  /// Ends a generation that is under way. Error{kArgument} for ids outside the vocabulary,
  /// Error{kContext} for more than fit.
  void append(const std::vector<int32_t>& ids);

  /// Begins to generate behind all tokens. Errors as Generation's.
  void begin(GenerationParams params);
  /// As Generation::step(); the tokens are part of the session. After an error all is as before
  /// the step, but for the generation, which has ended.
  std::vector<Emitted> step(const std::function<void()>& poll = {});
  /// Null before the first begin(). Stays after the end, for its stats, until the next begin().
  const Generation* generation() const { return generation_.get(); }
  /// Whether a generation is under way.
  bool generating() const { return generation_ && generation_->under_way(); }
  /// From any thread: ends the generation that is under way, as Generation::cancel(). Tokens that
  /// step() gave before stay.
  void cancel();
  /// Ends the generation that is under way, if one is.
  void end();

  /// Keeps the first `length` tokens, and ends a generation. Error{kArgument} beyond tokens().
  void rewind(int64_t length);
  /// A second one with the same past, also between two steps. Error{kMemory}.
  std::unique_ptr<Session> fork() const;

  /// Tokens and K/V to a file, for this model and K/V type. Error{kFile}: nothing is left behind.
  void save(const std::string& path) const;
  /// Error{kFile} for a damaged file, Error{kModel} for another model's, Error{kContext}.
  static std::unique_ptr<Session> restore(std::shared_ptr<Engine> engine, const std::string& path);

 private:
  const Sequence* sequence() const {
    return generating() ? generation_->sequence() : sequence_.get();
  }

  std::shared_ptr<Engine> engine_;
  std::vector<int32_t> tokens_;
  std::unique_ptr<Sequence> sequence_;  // null: none yet, or the generation has it
  // Changed under the fork_mutex(), under which cancel() reads it: a child can always lock that.
  std::shared_ptr<Generation> generation_;
};

}  // namespace gemtp
