// Times the parts of decoding one at a time, each with the code that decoding itself runs. To
// compare two of them, alternate between them, so that a busy moment of the machine affects both.
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
  /// can time both. Throws like Engine::open().
  Bench(std::shared_ptr<Engine> engine, bool plain_head);

  /// Seconds to run `tokens` tokens through the prefill path, from an empty context, and choose the
  /// next.
  double prefill(int64_t tokens);
  /// Seconds to verify `rows` rows after `context` positions: one target pass and a choice for each
  /// row. One row is a step of plain decoding.
  double verify(int64_t context, int64_t rows);
  /// Seconds of the `steps` draft steps of a round after `context` positions, each with its choice.
  /// Call verify() before, because in decoding a target pass has just swept the processor's caches.
  double draft(int64_t context, int steps, bool plain_head);

  /// Whether draft() can time both the plain and the ordered head.
  bool both_heads() const { return plain_ != nullptr; }
  bool ordered_head() const;
  int64_t plain_head_bytes() const { return bytes_per_token(plain_weights_, plain_config_); }
  /// Bytes of K and V that one row at position `context` reads in all layers.
  int64_t kv_bytes(int64_t context) const;

 private:
  void need_room(int64_t context, int64_t rows) const;
  void need_noise();

  const std::shared_ptr<Engine> engine_;
  OpenedModel& model_;  // the engine's
  Config plain_config_;
  Weights plain_weights_;
  std::unique_ptr<Drafter> plain_;
  std::unique_ptr<Sequence> sequence_;
  Outputs outputs_;
  bool noisy_ = false;        // the sequence has been filled with noise
  std::vector<int32_t> ids_;  // the rows to run, arbitrary tokens
  Chooser greedy_;
};

}  // namespace gemtp
