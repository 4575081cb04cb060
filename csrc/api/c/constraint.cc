#include "api/c/constraint.h"

#include <algorithm>
#include <vector>

#include "api/c/boundary.h"

namespace gemtp {
namespace {

constexpr size_t kMostForced = 64;

class CConstraint : public Constraint {
 public:
  CConstraint(const gemtp_constraint& c, int64_t vocab) : c_(c), words_((vocab + 31) / 32) {}

  void push(const int32_t* tokens, int64_t n) override {
    if (n) must(c_.push(tokens, static_cast<size_t>(n), c_.user));
  }
  void pop(int64_t n) override {
    if (n) must(c_.pop(static_cast<size_t>(n), c_.user));
  }
  void mask(uint32_t* words, int64_t n) override {
    must(c_.mask(words, static_cast<size_t>(n), c_.user));
  }

  // Pushes the tokens one by one, checking the mask at each step, and pops them again.
  int64_t allowed(const int32_t* tokens, int64_t n) override {
    int64_t i = 0;
    for (; i < n; ++i) {
      std::vector<uint32_t> next(static_cast<size_t>(words_));
      mask(next.data(), words_);
      if (!in_mask(next.data(), tokens[i])) break;
      push(tokens + i, 1);
    }
    pop(i);
    return i;
  }

  std::vector<int32_t> forced() override {
    if (!c_.forced) return {};
    std::vector<int32_t> out(kMostForced);
    out.resize(std::min(c_.forced(out.data(), out.size(), c_.user), kMostForced));
    return out;
  }
  bool complete() override { return c_.complete && c_.complete(c_.user) != 0; }

 private:
  static void must(int stop) {
    if (stop) throw Error(ErrorKind::kCancelled, "the constraint stopped the generation");
  }

  const gemtp_constraint c_;
  const int64_t words_;  // words of a mask
};

}  // namespace

std::shared_ptr<Constraint> constraint_of(const gemtp_constraint* given, int64_t vocab) {
  if (!given) return nullptr;
  const auto c = complete(given, gemtp_constraint{}, "gemtp_constraint");
  need(reinterpret_cast<const void*>(c.push), "push of the constraint");
  need(reinterpret_cast<const void*>(c.pop), "pop of the constraint");
  need(reinterpret_cast<const void*>(c.mask), "mask of the constraint");
  return std::make_shared<CConstraint>(c, vocab);
}

}  // namespace gemtp
