#include "api/python/parts.h"

#include "backend/cpu/bandwidth.h"
#include "base/error.h"
#include "engine/engine.h"
#include "engine/memory.h"
#include "engine/model_files.h"
#include "measure/bench.h"
#include "measure/copy_bandwidth.h"
#include "measure/features.h"
#include "measure/measured_costs.h"
#include "measure/score.h"
#include "measure/traces.h"
#include "text/chat.h"

namespace py = pybind11;

namespace gemtp {
namespace {

using EngineClass = Class<Engine, std::shared_ptr<Engine>>;

void bind_opening(EngineClass& c) {
  c.def(py::init([](const py::object& target, const py::object& drafter, int threads,
                    int64_t context, int64_t prefill_chunk, bool kv_f16, bool mmap,
                    const std::string& isa, int64_t kv_budget, const py::object& progress,
                    const std::string& device, const std::string& gpu_layers) {
          EngineOptions o;
          o.threads = threads;
          o.context = context;
          o.prefill_chunk = prefill_chunk;
          o.kv_f16 = kv_f16;
          o.mmap = mmap;
          o.isa = isa;
          o.kv_budget = kv_budget;
          o.device = device;
          o.gpu_layers = gpu_layers;
          o.progress = [&progress](double fraction) {
            check_signals();
            return progress.is_none() ||
                   call_python([&] { return !call(progress, fraction).is(py::bool_(false)); });
          };
          const std::string target_path = path_of(target);
          const std::string drafter_path = drafter.is_none() ? "" : path_of(drafter);
          if (!drafter.is_none() && drafter_path.empty())
            throw Error(ErrorKind::kArgument, "the path of the drafter is empty");
          const ReleasedGil release;
          return Engine::open(target_path, drafter_path, o);
        }),
        py::arg("target"), py::arg("drafter"), py::arg("threads"), py::arg("context"),
        py::arg("prefill_chunk"), py::arg("kv_f16"), py::arg("mmap"), py::arg("isa"),
        py::arg("kv_budget") = 0, py::arg("progress") = py::none(), py::arg("device") = "",
        py::arg("gpu_layers") = "");
}

void bind_properties(EngineClass& c) {
  c.def_property_readonly("has_drafter", [](const Engine& e) { return e.model().has_drafter(); })
      .def_property_readonly("context", [](const Engine& e) { return e.model().context(); })
      .def_property_readonly("vocab_size", [](const Engine& e) { return e.model().config().vocab; })
      .def_property_readonly("threads",
                             [](const Engine& e) { return e.model().backend().threads(); })
      .def_property_readonly("device", [](const Engine& e) { return e.model().backend().device(); })
      .def_property_readonly("gpu_layers",
                             [](const Engine& e) {
                               return e.model().backend().own_memory() ? e.model().device_layers()
                                                                       : 0;
                             })
      .def_property_readonly("identity", [](const Engine& e) { return e.model().identity(); })
      .def_property_readonly("split", [](const Engine& e) { return e.model().placement().split(); })
      .def_property_readonly("cpu_experts",
                             [](const Engine& e) {
                               const Placement& p = e.model().placement();
                               return p.splits_layers() ? p.host_experts - p.host_layers : 0;
                             })
      .def_property_readonly("refused_gpus",
                             [](const Engine& e) { return e.model().refused_gpus(); })
      .def_property_readonly("isa", [](const Engine& e) { return e.model().backend().isa(); })
      .def_property_readonly("target_bytes",
                             [](const Engine& e) { return e.model().target_bytes(); })
      .def_property_readonly("drafter_bytes",
                             [](const Engine& e) { return e.model().drafter_bytes(); })
      .def_property_readonly(
          "tokenizer",
          [](const std::shared_ptr<Engine>& e) { return part_of(e, e->model().need_tokenizer()); })
      .def_property_readonly("chat_template",
                             [](const Engine& e) -> py::object {
                               const auto text =
                                   e.model().file().get_string("tokenizer.chat_template");
                               return text ? py::bytes(*text) : py::object(py::none());
                             })
      .def_property_readonly("completes",
                             [](const Engine& e) { return completes_texts(e.model().file()); })
      .def_property_readonly("sampling",
                             [](const Engine& e) { return sampling_dict(e.model().file()); })
      .def_property_readonly("kv_budget", [](Engine& e) { return e.sequences().budget(); })
      .def(
          "clear_cache", [](Engine& e) { e.sequences().clear(); }, NoGil())
      .def_property_readonly("has_tokenizer",
                             [](const Engine& e) { return e.model().tokenizer() != nullptr; });
}

void bind_evaluations(EngineClass& c) {
  c.def("logits",
        [](Engine& e, const std::vector<int32_t>& ids) {
          e.model().check_ids(ids, 0);
          FloatArray out({static_cast<py::ssize_t>(ids.size()),
                          static_cast<py::ssize_t>(e.model().config().vocab)});
          float* data = out.mutable_data();
          const ReleasedGil release;
          trace_logits(e.model(), ids, data);
          return out;
        })
      .def("score",
           [](Engine& e, const std::vector<int32_t>& ids, int64_t first) {
             std::vector<double> scores;
             {
               const ReleasedGil release;
               scores = score(e.model(), ids, first, check_signals);
             }
             return array_of(scores);
           })
      .def(
          "score_with_likeliest",
          [](Engine& e, const std::vector<int32_t>& ids, int64_t first, int top,
             const py::function& cancelled) {
            std::vector<Logprobs> scores;
            {
              const ReleasedGil release;
              scores = score_with_likeliest(e.model(), ids, first, top, [&] {
                if (call_python([&] { return call(cancelled).cast<bool>(); }))
                  throw Error(ErrorKind::kCancelled, "the text is not wanted any more");
              });
            }
            py::list out;
            for (const Logprobs& token : scores) {
              py::list top_tokens;
              for (const TokenLogprob& t : token.top)
                top_tokens.append(py::make_tuple(t.id, t.logprob));
              out.append(py::make_tuple(token.chosen, top_tokens));
            }
            return out;
          },
          py::arg("ids"), py::arg("first"), py::arg("top"), py::arg("cancelled"))
      .def("compare",
           [](Engine& p, Engine& q, const std::vector<int32_t>& ids, int64_t first) {
             Comparison c;
             {
               const ReleasedGil release;
               c = compare(p.model(), q.model(), ids, first, check_signals);
             }
             return py::make_tuple(array_of(c.log_p), array_of(c.log_q), array_of(c.divergence),
                                   array_of(c.same_best));
           })
      .def(
          "set_costs",
          [](Engine& e, const std::vector<std::tuple<int, int64_t, double>>& verify,
             const std::vector<std::tuple<int, int64_t, double>>& draft) {
            std::vector<VerifyCost> v;
            for (const auto& [rows, context, seconds] : verify)
              v.push_back({rows, context, seconds});
            std::vector<DraftCost> d;
            for (const auto& [step, context, seconds] : draft)
              d.push_back({step, context, seconds});
            const ReleasedGil release;  // a running pass may call Python
            start_from(e, v, d);
          },
          py::arg("verify"), py::arg("draft"))
      .def("draft_features",
           [](Engine& e, const std::vector<int32_t>& ids, int steps) {
             std::vector<float> values;
             {
               const ReleasedGil release;
               values = draft_features(e.model(), ids, steps, check_signals);
             }
             const auto rounds = static_cast<py::ssize_t>(ids.size()) - 1;
             const auto width = static_cast<py::ssize_t>(values.size()) / (rounds * steps);
             return FloatArray({rounds, static_cast<py::ssize_t>(steps), width}, values.data());
           })
      .def("draft", [](Engine& e, const std::vector<int32_t>& ids, int k) {
        DraftTrace t;
        {
          const ReleasedGil release;
          t = trace_drafts(e, ids, k);
        }
        const auto rows = static_cast<py::ssize_t>(k);
        const auto hidden = static_cast<py::ssize_t>(t.hidden.size()) / rows;
        return py::make_tuple(
            t.tokens,
            FloatArray({rows, static_cast<py::ssize_t>(e.model().config().vocab)}, t.logits.data()),
            FloatArray({rows, hidden}, t.hidden.data()));
      });
}

void bind_bench(py::module_& m) {
  Class<Bench>(m, "Bench")
      .def(py::init([](std::shared_ptr<Engine> engine, bool plain_head) {
             const ReleasedGil release;
             return std::make_unique<Bench>(std::move(engine), plain_head);
           }),
           py::arg("engine"), py::arg("plain_head"))
      .def("prefill", &Bench::prefill, py::arg("tokens"), NoGil())
      .def("verify", &Bench::verify, py::arg("context"), py::arg("rows"), NoGil())
      .def("draft", &Bench::draft, py::arg("context"), py::arg("steps"), py::arg("plain_head"),
           NoGil())
      .def("kv_bytes", &Bench::kv_bytes, py::arg("context"))
      .def_property_readonly("ordered_head", &Bench::ordered_head)
      .def_property_readonly("both_heads", &Bench::both_heads)
      .def_property_readonly("plain_head_bytes", &Bench::plain_head_bytes);
  Class<CopyBandwidth>(m, "CopyBandwidth")
      .def(py::init([](std::shared_ptr<Engine> engine) {
             const ReleasedGil release;
             return std::make_unique<CopyBandwidth>(std::move(engine));
           }),
           py::arg("engine"))
      .def("sample", &CopyBandwidth::sample, NoGil())
      .def_property_readonly("bytes", &CopyBandwidth::bytes);
  Class<ReadBandwidth>(m, "ReadBandwidth")
      .def(py::init([](int threads, int64_t bytes) {
             const ReleasedGil release;
             return std::make_unique<ReadBandwidth>(threads, bytes);
           }),
           py::arg("threads"), py::arg("bytes") = 0)
      .def("plain", &ReadBandwidth::plain, NoGil())
      .def("prefetched", &ReadBandwidth::prefetched, NoGil())
      .def_property_readonly("bytes", &ReadBandwidth::bytes);
}

void bind_estimate(py::module_& m) {
  m.def(
      "memory_estimate",
      [](const py::object& target, const py::object& drafter, int64_t context,
         int64_t prefill_chunk, bool kv_f16) {
        EngineOptions o;
        o.context = context;
        o.prefill_chunk = prefill_chunk;
        o.kv_f16 = kv_f16;
        o.check();
        const ModelFiles files =
            ModelFiles::open(path_of(target), drafter.is_none() ? "" : path_of(drafter));
        const MemoryEstimate e = estimate_memory(files, o);
        using namespace py::literals;
        return py::dict("weights"_a = e.device.weights, "kv"_a = e.device.kv,
                        "scratch"_a = e.device.scratch, "needed"_a = e.needed(true),
                        "tables"_a = e.tables, "context"_a = e.context);
      },
      py::arg("target"), py::arg("drafter"), py::arg("context"), py::arg("prefill_chunk"),
      py::arg("kv_f16"));
}

}  // namespace

void bind_engine(py::module_& m) {
  EngineClass c(m, "Engine");
  bind_opening(c);
  bind_properties(c);
  bind_evaluations(c);
  bind_bench(m);
  bind_estimate(m);
}

}  // namespace gemtp
