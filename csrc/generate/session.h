// A text that can be continued: its tokens, and K/V of most of them. Tokens are appended or
// generated at its end; it can be rewound, forked and saved to a file. The generated text depends
// only on the session's tokens, not on how they came about.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "generate/generation.h"

namespace gemtp {

/// To be used by one thread at a time, except for cancel().
class Session {
 public:
  explicit Session(std::shared_ptr<Engine> engine) : engine_(std::move(engine)) {}
  ~Session();  // its K/V serve later prompts that begin alike

  /// All tokens so far, both appended and generated.
  const std::vector<int32_t>& tokens() const { return tokens_; }
  /// Number of leading tokens that need not be run again.
  int64_t cached() const;
  const std::shared_ptr<Engine>& engine() const { return engine_; }

  /// Appends tokens, and ends a generation that is under way. Throws Error{kArgument} for ids
  /// outside the vocabulary, and Error{kContext} if they do not fit.
  void append(const std::vector<int32_t>& ids);

  /// Begins a generation after all tokens. Throws like Generation's constructor.
  void begin(GenerationParams params);
  /// Works like Generation::step(), and adds the tokens to the session. After an error the session
  /// is as before the step, except that the generation has ended.
  std::vector<Emitted> step(const std::function<void()>& poll = {});
  /// The latest generation, null before the first begin(). It stays after its end, for its stats,
  /// until the next begin().
  const Generation* generation() const { return generation_.get(); }
  /// Whether a generation is under way.
  bool generating() const { return generation_ && generation_->under_way(); }
  /// Ends the generation that is under way, like Generation::cancel(). May be called from any
  /// thread. Tokens that step() has returned stay.
  void cancel();
  /// Ends the generation that is under way, if one is.
  void end();

  /// Keeps the first `length` tokens, and ends a generation that is under way. Throws
  /// Error{kArgument} if there are fewer.
  void rewind(int64_t length);
  /// Returns a second session with the same tokens; works between two steps, too. Throws
  /// Error{kMemory}.
  std::unique_ptr<Session> fork() const;

  /// Saves tokens and K/V to a file, for this model and K/V type. If it throws Error{kFile}, no
  /// file is left behind.
  void save(const std::string& path) const;
  /// Restores a saved session. Throws Error{kFile} for a damaged file, Error{kModel} for a file of
  /// another model, and Error{kContext} if it does not fit.
  static std::unique_ptr<Session> restore(std::shared_ptr<Engine> engine, const std::string& path);

 private:
  const Sequence* sequence() const {
    return generating() ? generation_->sequence() : sequence_.get();
  }

  std::shared_ptr<Engine> engine_;
  std::vector<int32_t> tokens_;
  std::unique_ptr<Sequence> sequence_;  // null: none yet, or held by the generation
  // Changed and, by cancel(), read under the fork_mutex(), which a forked child can always lock.
  std::shared_ptr<Generation> generation_;
};

}  // namespace gemtp
