#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <type_traits>
#include <utility>

#include "api/python/parts.h"
#include "base/error.h"
#include "base/fork.h"
#include "generate/generation.h"
#include "generate/session.h"

namespace py = pybind11;
using namespace py::literals;

namespace gemtp {
namespace {

py::dict stats_dict(const GenerationStats& stats) {
  py::dict out;
  for_each_figure(stats, [&](const char* name, const auto& figure) { out[name] = figure; });
  return out;
}

// Returns the table of numeric options, one dict per row.
py::list options() {
  py::list out;
  const GenerationParams defaults;
  for_each_option(defaults, [&](auto value, const Option& o) {
    out.append(py::dict("name"_a = o.name, "whole"_a = std::is_integral_v<decltype(value)>,
                        "default"_a = value, "least"_a = o.least, "most"_a = o.most,
                        "above_least"_a = o.above_least, "below_most"_a = o.below_most,
                        "domain"_a = o.domain, "help"_a = o.help, "key"_a = o.key));
  });
  return out;
}

py::object depth_dict(const DepthReport& r) {
  if (r.verify_seconds.empty()) return py::none();
  return py::dict(
      "verify_seconds"_a = r.verify_seconds, "first_draft_seconds"_a = r.draft_seconds[0],
      "draft_seconds"_a = r.draft_seconds[1], "drafter_acceptance"_a = r.drafter_acceptance,
      "lookup_acceptance"_a = r.lookup_acceptance,
      "expected_tokens_per_second"_a = r.expected_rate);
}

// Returns (id, source, text, logprob or None, [(id, logprob)]).
py::tuple token_tuple(const Emitted& e) {
  py::list top;
  for (const TokenLogprob& t : e.logprobs.top) top.append(py::make_tuple(t.id, t.logprob));
  const double logprob = e.logprobs.chosen;
  return py::make_tuple(e.id, draft_source_name(e.source), e.text,
                        std::isnan(logprob) ? py::object(py::none()) : py::cast(logprob), top);
}

// A Python function as a LogitsProcessor. Any thread may call and destroy it.
class PythonProcessor {
 public:
  explicit PythonProcessor(py::object function) : function_(std::move(function)) {}
  ~PythonProcessor() { give_up({&function_, &seen_}); }
  PythonProcessor(const PythonProcessor&) = delete;

  void operator()(const std::vector<int32_t>& tokens, float* logits, int64_t vocab) {
    call_python([&] { process(tokens, logits, vocab); });
  }

 private:
  void process(const std::vector<int32_t>& tokens, float* logits, int64_t vocab) {
    if (!seen_) seen_ = py::list();
    auto seen = py::reinterpret_borrow<py::list>(seen_);
    for (size_t i = seen.size(); i < tokens.size(); ++i) seen.append(tokens[i]);
    // Pass a copy, because the function may keep it.
    FloatArray values(static_cast<py::ssize_t>(vocab), logits);
    const py::object result = call(function_, seen, values);
    const FloatInput changed = FloatInput::ensure(result.is_none() ? py::object(values) : result);
    if (!changed || changed.ndim() != 1 || changed.shape(0) != vocab) {
      PyErr_Clear();
      throw Error(ErrorKind::kArgument,
                  format("the logits processor returned a %s; it must return None, or an array "
                         "of %lld numbers",
                         Py_TYPE(result.ptr())->tp_name, static_cast<long long>(vocab)));
    }
    std::memcpy(logits, changed.data(), static_cast<size_t>(vocab) * sizeof(float));
  }

  py::object function_, seen_;  // seen_: list[int], the tokens passed so far
};

struct PythonParams : GenerationParams {
  py::object processor = py::none();

  GenerationParams params() const {
    GenerationParams out = *this;
    if (!processor.is_none()) {
      auto function = std::make_shared<PythonProcessor>(processor);
      out.logits_processor = [function](const std::vector<int32_t>& tokens, float* logits,
                                        int64_t vocab) { (*function)(tokens, logits, vocab); };
    }
    return out;
  }
};

const char* name_of(const Generation&) { return "generation"; }
const char* name_of(const Session&) { return "session"; }

// Allows only one thread at a time to use a value and rejects others. The flag itself is only
// accessed with the GIL.
template <class T>
class Exclusive {
 public:
  explicit Exclusive(std::unique_ptr<T> value) : value_(std::move(value)) {}

  /// The value without the check, for functions that any thread may call.
  T& unguarded() { return *value_; }

  template <class Fn>
  auto use(const Fn& fn) {
    if (busy_ && forks_ != fork_count()) throw_lost_by_fork();
    forks_ = fork_count();
    if (busy_)
      throw Error(ErrorKind::kArgument,
                  format("another thread is at work with this %s; only cancel() is for any thread",
                         name_of(*value_)));
    const Busy busy(busy_);
    return fn(*value_);
  }
  /// Calls fn with the value, without the GIL.
  template <class Fn>
  auto work(const Fn& fn) {
    return use([&](T& value) {
      const ReleasedGil release;
      return fn(value);
    });
  }

 private:
  struct Busy {
    explicit Busy(bool& flag) : flag(flag) { flag = true; }
    ~Busy() { flag = false; }
    Busy(const Busy&) = delete;
    bool& flag;
  };

  std::unique_ptr<T> value_;
  bool busy_ = false;
  uint32_t forks_ = fork_count();  // at the latest use; a child never sees that use end
};

const Generation& generation_of(const Generation& g) { return g; }

const Generation& generation_of(const Session& t) {
  if (!t.generation()) throw Error(ErrorKind::kArgument, "nothing has been generated yet");
  return *t.generation();
}

// Binds step(), cancel() and the statistics for a Generation or a Session.
template <class T>
void bind_steps(py::class_<Exclusive<T>>& c) {
  using Held = Exclusive<T>;
  const auto report = [&c](const char* name, auto get) {
    c.def_property_readonly(name, [get](Held& held) {
      return held.use([&](const T& value) { return get(generation_of(value)); });
    });
  };
  c.def("step", [](Held& held) {
    const std::vector<Emitted> emitted =
        held.work([](T& value) { return value.step(check_signals); });
    py::list out;
    for (const Emitted& e : emitted) out.append(token_tuple(e));
    return out;
  });
  c.def("cancel", [](Held& held) { held.unguarded().cancel(); }, NoGil());
  report("done", [](const Generation& g) { return g.done(); });
  report("finish_reason",
         [](const Generation& g) { return finish_reason_name(g.finish_reason()); });
  report("tail", [](const Generation& g) { return g.tail(); });
  report("prompt_done", [](const Generation& g) { return g.prompt_done(); });
  report("stats", [](const Generation& g) { return stats_dict(g.stats()); });
  report("depth_report", [](const Generation& g) { return depth_dict(g.depth_report()); });
}

void bind_params(py::module_& m) {
  Class<PythonParams, std::shared_ptr<PythonParams>> c(m, "GenerationParams");
  const auto sampling = [&c]<class T>(const char* name, T SamplingParams::* member) {
    c.def_property(
        name, [member](const PythonParams& p) { return p.sampling.*member; },
        [member](PythonParams& p, T value) { p.sampling.*member = std::move(value); });
  };
  c.def(py::init([] { return std::make_shared<PythonParams>(); }))
      .def(
          "set",
          [](PythonParams& p, const std::string& name, double number) {
            set_option<GenerationParams>(&p, name, number);
          },
          py::arg("name"), py::arg("number"), "Sets a row of options().")
      .def_property(
          "stop", [](const PythonParams& p) { return p.stop; },
          [](PythonParams& p, const std::vector<py::object>& stop) {
            p.stop.clear();
            for (const py::object& s : stop) p.stop.push_back(utf8(s));
          })
      .def_readwrite("ignore_eos", &PythonParams::ignore_eos)
      .def_readwrite("wait", &PythonParams::wait)
      .def_readwrite("constraint", &PythonParams::constraint)
      .def_readwrite("logits_processor", &PythonParams::processor);
  sampling("seed", &SamplingParams::seed);
  sampling("logit_bias", &SamplingParams::logit_bias);
  sampling("suppress_tokens", &SamplingParams::suppress_tokens);
  m.def("options", options, "The options that are one number.");
}

void bind_choose(py::module_& m) {
  m.def(
      "choose_many",
      [](const FloatInput& logits, const std::vector<int64_t>& positions,
         const std::vector<int32_t>& history, const PythonParams& params) {
        const auto n = static_cast<int64_t>(logits.size());
        py::array_t<int32_t> out(static_cast<py::ssize_t>(positions.size()));
        int32_t* chosen = out.mutable_data();
        const float* values = logits.data();
        const ReleasedGil release;
        Chooser chooser(params.sampling, {}, static_cast<int32_t>(n));
        TokenHistory tokens(params.sampling.penalty_last_n);
        for (int32_t id : history) tokens.push(id);
        for (size_t i = 0; i < positions.size(); ++i)
          chosen[i] = chooser.choose(values, nullptr, n, positions[i], tokens);
        return out;
      },
      py::arg("logits"), py::arg("positions"), py::arg("history"), py::arg("params"),
      "The token chosen at each position from the same logits: the sampler by itself.");
}

void bind_session(py::module_& m) {
  using Held = Exclusive<Session>;
  Class<Held> c(m, "Session");
  const auto held = [](std::unique_ptr<Session> session) {
    return std::make_unique<Held>(std::move(session));
  };
  c.def(py::init([held](std::shared_ptr<Engine> engine) {
          return held(std::make_unique<Session>(std::move(engine)));
        }),
        py::arg("engine"))
      .def_property_readonly(
          "tokens", [](Held& t) { return list_of(t.use([](Session& x) { return x.tokens(); })); })
      .def_property_readonly("cached",
                             [](Held& t) { return t.use([](Session& x) { return x.cached(); }); })
      .def_property_readonly(
          "generating", [](Held& t) { return t.use([](Session& x) { return x.generating(); }); })
      .def(
          "append",
          [](Held& t, const std::vector<int32_t>& ids) {
            t.work([&](Session& x) { x.append(ids); });
          },
          py::arg("ids"))
      .def(
          "begin",
          [](Held& t, const PythonParams& p) {
            GenerationParams params = p.params();
            t.work([&](Session& x) { x.begin(std::move(params)); });
          },
          py::arg("params"))
      .def("end", [](Held& t) { t.work([](Session& x) { x.end(); }); })
      .def(
          "rewind", [](Held& t, int64_t length) { t.work([&](Session& x) { x.rewind(length); }); },
          py::arg("length"))
      .def("fork", [held](Held& t) { return held(t.work([](Session& x) { return x.fork(); })); })
      .def(
          "save",
          [](Held& t, const py::object& path) {
            t.work([p = path_of(path)](Session& x) { x.save(p); });
          },
          py::arg("path"))
      .def_static(
          "restore",
          [held](std::shared_ptr<Engine> engine, const py::object& path) {
            const std::string p = path_of(path);
            std::unique_ptr<Session> session;
            {
              const ReleasedGil release;
              session = Session::restore(std::move(engine), p);
            }
            return held(std::move(session));
          },
          py::arg("engine"), py::arg("path"));
  bind_steps(c);
}

}  // namespace

void bind_generation(py::module_& m) {
  bind_params(m);
  bind_choose(m);
  using Held = Exclusive<Generation>;
  Class<Held> c(m, "Generation");
  c.def(py::init(
            [](std::shared_ptr<Engine> engine, std::vector<int32_t> prompt, const PythonParams& p) {
              GenerationParams params = p.params();
              const ReleasedGil release;
              return std::make_unique<Held>(std::make_unique<Generation>(
                  std::move(engine), std::move(prompt), std::move(params)));
            }),
        py::arg("engine"), py::arg("prompt"), py::arg("params"));
  bind_steps(c);
  bind_session(m);
}

}  // namespace gemtp
