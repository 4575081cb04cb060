// Constraints whose state is kept by Python objects: the matchers of llguidance.
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "api/python/parts.h"
#include "base/error.h"
#include "choose/constraint.h"
#include "choose/reply_constraint.h"
#include "text/reply.h"
#include "text/tokenizer.h"

namespace py = pybind11;

namespace gemtp {
namespace {

/// A constraint that wraps an llguidance.LLMatcher. The thread that runs the pass calls it and
/// takes the GIL for that, so a thread that holds the GIL must not wait for a pass. The matcher
/// never raises for bad input; its error has to be queried.
class Matcher : public Constraint {
 public:
  explicit Matcher(const py::object& matcher)
      : matcher_(matcher),
        consume_(matcher.attr("consume_tokens")),
        rollback_(matcher.attr("rollback")),
        fill_mask_(matcher.attr("unsafe_compute_mask_ptr")),
        validate_(matcher.attr("validate_tokens")),
        forced_(matcher.attr("compute_ff_tokens")),
        is_stopped_(matcher.attr("is_stopped")),
        is_error_(matcher.attr("is_error")) {}
  Matcher(const Matcher&) = delete;
  Matcher& operator=(const Matcher&) = delete;
  ~Matcher() override {
    give_up({&matcher_, &consume_, &rollback_, &fill_mask_, &validate_, &forced_, &is_stopped_,
             &is_error_});
  }

  void push(const int32_t* tokens, int64_t n) override {
    call_python([&] {
      if (!call(consume_, list(tokens, n)).cast<bool>()) fail();
    });
  }
  void pop(int64_t n) override {
    call_python([&] {
      if (!call(rollback_, n).cast<bool>()) fail();
    });
  }
  void mask(uint32_t* words, int64_t n) override {
    call_python([&] {
      call(fill_mask_, reinterpret_cast<uintptr_t>(words), n * int64_t{4});
      check();
    });
  }
  int64_t allowed(const int32_t* tokens, int64_t n) override {
    return call_python([&] {
      const auto count = call(validate_, list(tokens, n)).cast<int64_t>();
      check();
      return count;
    });
  }
  std::vector<int32_t> forced() override {
    return call_python([&] { return call(forced_).cast<std::vector<int32_t>>(); });
  }
  bool complete() override {
    return call_python([&] {
      if (!call(is_stopped_).cast<bool>()) return false;
      check();
      return true;
    });
  }

 private:
  static py::list list(const int32_t* tokens, int64_t n) {
    py::list out(static_cast<py::ssize_t>(n));
    for (int64_t i = 0; i < n; ++i) out[static_cast<size_t>(i)] = py::int_(tokens[i]);
    return out;
  }
  void check() const {
    if (call(is_error_).cast<bool>()) fail();
  }
  [[noreturn]] void fail() const {
    const auto why = call(matcher_.attr("get_error")).cast<std::string>();
    throw Error(ErrorKind::kArgument,
                "the text cannot go on under its grammar: " + why.substr(0, why.find('\n')));
  }

  py::object matcher_, consume_, rollback_, fill_mask_, validate_, forced_, is_stopped_, is_error_;
};

/// An LLMatcher at the beginning of a text, of which each call gets a copy.
class FirstMatcher {
 public:
  explicit FirstMatcher(const py::object& matcher)
      : matcher_(matcher), deep_copy_(matcher.attr("deep_copy")) {}
  FirstMatcher(const FirstMatcher&) = delete;
  FirstMatcher& operator=(const FirstMatcher&) = delete;
  ~FirstMatcher() { give_up({&matcher_, &deep_copy_}); }

  std::shared_ptr<Constraint> copy() const {
    return call_python([&] { return std::make_shared<Matcher>(call(deep_copy_)); });
  }

 private:
  py::object matcher_, deep_copy_;
};

// Returns (bytes of each token, ids of the tokens that are not text).
py::tuple grammar_vocabulary(const Tokenizer& t) {
  py::list bytes;
  std::vector<int32_t> special;
  for (int32_t id = 0; id < t.vocab_size(); ++id) {
    if (t.token_type(id) == TokenType::kControl || t.token_type(id) == TokenType::kUnknown)
      special.push_back(id);
    bytes.append(py::bytes(t.token_bytes(id, true)));
  }
  std::vector<int32_t> marks = reply_marks(t);
  const std::vector<int32_t> ends = t.end_tokens();
  marks.insert(marks.end(), ends.begin(), ends.end());
  for (const int32_t id : marks)
    if (t.token_type(id) != TokenType::kControl) special.push_back(id);
  return py::make_tuple(bytes, special);
}

}  // namespace

void bind_constraint(py::module_& m) {
  m.def("grammar_vocabulary", &grammar_vocabulary, py::arg("tokenizer"));
  Class<Constraint, std::shared_ptr<Constraint>>(m, "Constraint");
  m.def(
      "matcher_constraint",
      [](const py::object& matcher) -> std::shared_ptr<Constraint> {
        return std::make_shared<Matcher>(matcher);
      },
      py::arg("matcher"), "Of an llguidance.LLMatcher, for one generation.");
  m.def(
      "reply_constraint",
      [](const Tokenizer& tokenizer, const std::vector<int32_t>& prompt,
         std::shared_ptr<Constraint> answer, const std::optional<py::object>& call,
         const std::vector<std::string>& functions, bool thoughts, bool calls,
         bool required) -> std::shared_ptr<Constraint> {
        ReplyRules rules{std::move(answer), {}, functions, thoughts, calls, required};
        if (call) {
          rules.make_call = [first = std::make_shared<FirstMatcher>(*call)] {
            return first->copy();
          };
        }
        return std::make_shared<ReplyConstraint>(tokenizer, prompt, std::move(rules));
      },
      py::arg("tokenizer"), py::arg("prompt"), py::arg("answer"), py::arg("call"),
      py::arg("functions"), py::arg("thoughts"), py::arg("calls"), py::arg("required"),
      "Of a reply; call: an llguidance.LLMatcher for each call. See ReplyRules.");
}

}  // namespace gemtp
