// Times the pieces of decoding one at a time, each through the code that decoding itself runs.
// Whoever compares two of them alternates between them: a busy moment of the machine then meets
// both.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "choose/choose.h"
#include "engine/engine.h"
#include "engine/sequence.h"

namespace gemtp {

class Bench {
 public:
  /// plain_head: also loads the plain head of a drafter that has an ordered one, so that draft()
  /// can time both. Error as Engine::open().
  Bench(std::shared_ptr<Engine> engine, bool plain_head);

  /// Runs `tokens` tokens through the prefill path, from an empty context, and chooses the next.
  double prefill(int64_t tokens);
  /// Verifies `rows` rows behind `context` positions: one target pass and a choice for each row.
  /// One row is a step of plain decoding.
  double verify(int64_t context, int64_t rows);
  /// The `steps` draft steps of a round behind `context` positions, each with its choice. Call
  /// verify() before: in decoding, a target pass has just swept the caches.
  double draft(int64_t context, int steps, bool plain_head);

  /// True when draft() can be asked for the plain head as well as for the ordered one.
  bool both_heads() const { return plain_ != nullptr; }
  bool ordered_head() const;
  int64_t plain_head_bytes() const { return bytes_per_token(plain_weights_, plain_config_); }
  /// K and V that one row at position `context` reads in all layers.
  int64_t kv_bytes(int64_t context) const;

 private:
  void need_room(int64_t context, int64_t rows) const;
  void need_noise();

  const std::shared_ptr<Engine> engine_;
  OpenedModel& model_;  // of the engine
  Config plain_config_;
  Weights plain_weights_;
  std::unique_ptr<Drafter> plain_;
  std::unique_ptr<Sequence> sequence_;
  Outputs outputs_;
  bool noisy_ = false;        // every slot of the sequence holds something
  std::vector<int32_t> ids_;  // rows to run: arbitrary tokens
  Chooser greedy_;
};

}  // namespace gemtp
