// The Python binding: converts arguments and results, releases the GIL around work, and turns Error
// into the classes of gemtp_native.errors. No logic of its own.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstring>
#include <optional>

#include "api/python_chat.h"
#include "backend/cpu/bandwidth.h"
#include "backend/cpu/dispatch.h"
#include "backend/cpu/pack.h"
#include "backend/cpu/packed_form.h"
#include "base/cpu_info.h"
#include "base/error.h"
#include "decode/activation_sums.h"
#include "decode/bench.h"
#include "decode/choose.h"
#include "decode/engine.h"
#include "decode/features.h"
#include "decode/generation.h"
#include "decode/memory.h"
#include "decode/model_files.h"
#include "decode/score.h"
#include "gguf/blocks.h"
#include "gguf/reader.h"
#include "quantize/encode.h"
#include "text/tokenizer.h"

namespace py = pybind11;
using namespace gemtp;

namespace {

using NoGil = py::call_guard<py::gil_scoped_release>;
using FloatArray = py::array_t<float, py::array::c_style>;
using FloatInput = py::array_t<float, py::array::c_style | py::array::forcecast>;
using ByteInput = py::array_t<uint8_t, py::array::c_style>;

const char* error_class(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kFile:
      return "FileError";
    case ErrorKind::kModel:
      return "ModelError";
    case ErrorKind::kArgument:
      return "ArgumentError";
    case ErrorKind::kContext:
      return "ContextError";
    case ErrorKind::kCancelled:
      return "CancelledError";
    case ErrorKind::kMemory:
      return "OutOfMemoryError";
    case ErrorKind::kInternal:
      return "Error";
  }
  return "Error";
}

void raise(ErrorKind kind, const char* message) {
  const py::object type = py::module_::import("gemtp_native.errors").attr(error_class(kind));
  // File names may hold bytes that are not UTF-8.
  const py::object text = py::reinterpret_steal<py::object>(
      PyUnicode_DecodeUTF8(message, static_cast<Py_ssize_t>(std::strlen(message)), "replace"));
  PyErr_SetObject(type.ptr(), text.ptr());
}

// str or bytes as UTF-8. A str may hold lone surrogates, which have no UTF-8.
std::string utf8(const py::object& text) {
  if (PyBytes_Check(text.ptr())) return text.cast<std::string>();
  if (!PyUnicode_Check(text.ptr()))
    throw Error(ErrorKind::kArgument, std::string("the text is a ") + Py_TYPE(text.ptr())->tp_name +
                                          "; pass str or bytes");
  Py_ssize_t size = 0;
  const char* data = PyUnicode_AsUTF8AndSize(text.ptr(), &size);
  if (!data) {
    PyErr_Clear();
    throw Error(ErrorKind::kArgument,
                "the text holds a lone surrogate, which is not a character; clean the input first");
  }
  return {data, static_cast<size_t>(size)};
}

std::string path_of(const py::object& path) {
  const py::object encoded = py::module_::import("os").attr("fsencode")(path);
  return encoded.cast<std::string>();
}

// Invalid UTF-8 in metadata is shown, not refused: this is for looking at files.
py::object lossy(std::string_view s) {
  return py::reinterpret_steal<py::object>(
      PyUnicode_DecodeUTF8(s.data(), static_cast<Py_ssize_t>(s.size()), "replace"));
}

py::object metadata_value(const GgufFile& file, const std::string& key) {
  const Value& v = *file.find(key);
  const auto scalar = v.type != ValueType::kArray;
  switch (scalar ? v.type : v.element) {
    case ValueType::kString: {
      if (scalar) return py::cast(*file.get_string(key));
      const std::vector<std::string_view> strings = *file.get_strings(key);
      py::list out;
      for (std::string_view s : strings) out.append(lossy(s));
      return out;
    }
    case ValueType::kFloat32:
    case ValueType::kFloat64:
      if (scalar) return py::cast(*file.get_float(key));
      return py::cast(*file.get_floats(key));
    case ValueType::kBool:
      if (scalar) return py::cast(*file.get_bool(key));
      return py::cast(*file.get_ints(key));
    case ValueType::kUint64:
      if (scalar) return py::cast(*file.get_uint(key));
      return py::cast(*file.get_ints(key));
    default:
      if (scalar) return py::cast(*file.get_int(key));
      return py::cast(*file.get_ints(key));
  }
}

// Lets Ctrl-C end work that has released the GIL.
void check_signals() {
  const py::gil_scoped_acquire gil;
  if (PyErr_CheckSignals() != 0) throw py::error_already_set();
}

template <class T>
py::array_t<T> array_of(const std::vector<T>& values) {
  return py::array_t<T>(static_cast<py::ssize_t>(values.size()), values.data());
}

py::dict stats_dict(const GenerationStats& s) {
  using namespace py::literals;
  return py::dict("rounds"_a = s.rounds, "drafted"_a = s.drafted, "accepted"_a = s.accepted,
                  "lookup_drafted"_a = s.lookup_drafted, "lookup_accepted"_a = s.lookup_accepted,
                  "prompt_tokens"_a = s.prompt_tokens, "cached_tokens"_a = s.cached_tokens,
                  "prompt_seconds"_a = s.prompt_seconds, "tokens"_a = s.tokens,
                  "decode_seconds"_a = s.decode_seconds,
                  "tokens_per_second"_a = s.tokens_per_second(),
                  "depth_histogram"_a = s.depth_histogram, "drafted_at"_a = s.drafted_at,
                  "accepted_at"_a = s.accepted_at);
}

void bind_file(py::module_& m) {
  py::class_<GgufFile, std::shared_ptr<GgufFile>>(m, "GgufFile")
      .def(py::init([](const py::object& path, bool mmap) {
             return std::const_pointer_cast<GgufFile>(GgufFile::open(path_of(path), mmap));
           }),
           py::arg("path"), py::arg("mmap") = true)
      .def_property_readonly("version", &GgufFile::version)
      .def_property_readonly("size", &GgufFile::size)
      .def_property_readonly("parts",
                             [](const GgufFile& f) {
                               py::list out;
                               for (const std::string& path : f.parts())
                                 out.append(py::reinterpret_steal<py::object>(
                                     PyUnicode_DecodeFSDefault(path.c_str())));
                               return out;
                             })
      .def_property_readonly("keys", &GgufFile::keys)
      .def("value",
           [](const GgufFile& f, const std::string& key) -> py::object {
             return f.has(key) ? metadata_value(f, key) : py::none();
           })
      .def("array_length",
           [](const GgufFile& f, const std::string& key) -> py::object {
             const Value* v = f.find(key);
             return v && v->type == ValueType::kArray ? py::cast(v->count) : py::none();
           })
      .def(
          "rows",
          [](const GgufFile& f, const std::string& name, int64_t first, int64_t count) {
            const Tensor* t = f.find_tensor(name);
            const int64_t rows = t ? t->elements() / t->shape[0] : 0;
            if (first < 0 || count < 0 || first > rows - count || !dtype_supported(t->type))
              throw Error(ErrorKind::kArgument,
                          format("%s: rows %lld to %lld of tensor %s cannot be read",
                                 f.quoted_path().c_str(), static_cast<long long>(first),
                                 static_cast<long long>(first + count), quoted(name).c_str()));
            const WeightSource source{static_cast<DType>(t->type), rows, t->shape[0], t->data};
            FloatArray out(
                {static_cast<py::ssize_t>(count), static_cast<py::ssize_t>(t->shape[0])});
            float* data = out.mutable_data();
            py::gil_scoped_release release;
            for (int64_t i = 0; i < count; ++i)
              dequantize(source, first + i, 0, source.cols, data + i * source.cols);
            return out;
          },
          py::arg("name"), py::arg("first"), py::arg("count"),
          "Rows of a tensor as float32; non-finite values are given as they are.")
      .def_property_readonly("tensors", [](const GgufFile& f) {
        py::list out;
        for (const Tensor& t : f.tensors())
          out.append(py::make_tuple(t.name, dtype_info(t.type)->name, t.shape, t.bytes,
                                    dtype_supported(t.type)));
        return out;
      });
}

void bind_types(py::module_& m) {
  m.def(
      "packed_form",
      [](const std::string& type) -> py::object {
        for (uint32_t t = 0; t < 256; ++t)
          if (dtype_supported(t) && type == dtype_info(t)->name) {
            const PackedForm& form = packed_form(static_cast<DType>(t));
            const auto bytes = static_cast<double>(8 * form.block_bytes + form.scale_bytes);
            const DTypeInfo& info = *dtype_info(t);
            return py::make_tuple(form.name, bytes * 8 / 256, info.bytes * 8.0 / info.block);
          }
        return py::none();
      },
      py::arg("type"));
}

void bind_tokenizer(py::module_& m) {
  py::class_<Tokenizer>(m, "Tokenizer")
      .def(py::init([](const py::object& path) {
             return std::make_unique<Tokenizer>(*GgufFile::open(path_of(path)));
           }),
           py::arg("path"))
      .def(
          "encode",
          [](const Tokenizer& t, const py::object& text, bool add_bos, bool special) {
            const std::string s = utf8(text);
            py::gil_scoped_release release;
            return t.encode(s, add_bos, special);
          },
          py::arg("text"), py::arg("add_bos") = false, py::arg("special") = false)
      .def(
          "encode_chat",
          [](const Tokenizer& t, const std::string& text,
             const std::vector<std::pair<size_t, size_t>>& literal) {
            std::vector<TextRange> ranges;
            for (const auto& [begin, end] : literal) ranges.push_back({begin, end});
            py::gil_scoped_release release;
            return t.encode_chat(text, ranges, true);
          },
          py::arg("text"), py::arg("literal"))
      .def(
          "decode",
          [](const Tokenizer& t, const std::vector<int32_t>& ids, bool special) {
            return t.decode(ids, special);
          },
          py::arg("ids"), py::arg("special") = false)
      .def_property_readonly("vocab_size", &Tokenizer::vocab_size)
      .def_property_readonly("bos", &Tokenizer::bos)
      .def_property_readonly("end_tokens", &Tokenizer::end_tokens)
      .def_property_readonly("suppressed", &Tokenizer::suppressed)
      .def_property_readonly("control_tokens",
                             [](const Tokenizer& t) {
                               py::list out;
                               for (const std::string& text : t.control_tokens())
                                 out.append(lossy(text));
                               return out;
                             })
      .def("find", &Tokenizer::find, py::arg("token_text"))
      .def("token_text", [](const Tokenizer& t, int32_t id) { return lossy(t.token_text(id)); });
}

void bind_sampling(py::module_& m) {
  py::class_<SamplingParams>(m, "SamplingParams")
      .def(py::init<>())
      .def_readwrite("temperature", &SamplingParams::temperature)
      .def_readwrite("top_k", &SamplingParams::top_k)
      .def_readwrite("top_p", &SamplingParams::top_p)
      .def_readwrite("min_p", &SamplingParams::min_p)
      .def_readwrite("repetition_penalty", &SamplingParams::repetition_penalty)
      .def_readwrite("presence_penalty", &SamplingParams::presence_penalty)
      .def_readwrite("frequency_penalty", &SamplingParams::frequency_penalty)
      .def_readwrite("penalty_last_n", &SamplingParams::penalty_last_n)
      .def_readwrite("seed", &SamplingParams::seed)
      .def_readwrite("logit_bias", &SamplingParams::logit_bias)
      .def_readwrite("suppress_tokens", &SamplingParams::suppress_tokens);
  m.def(
      "choose_many",
      [](const FloatInput& logits, const std::vector<int64_t>& positions,
         const std::vector<int32_t>& history, const SamplingParams& params) {
        const auto n = static_cast<int64_t>(logits.size());
        py::array_t<int32_t> out(static_cast<py::ssize_t>(positions.size()));
        int32_t* chosen = out.mutable_data();
        const float* values = logits.data();
        py::gil_scoped_release release;
        Chooser chooser(params, {}, static_cast<int32_t>(n));
        TokenHistory tokens(params.penalty_last_n);
        for (int32_t id : history) tokens.push(id);
        for (size_t i = 0; i < positions.size(); ++i)
          chosen[i] = chooser.choose(values, nullptr, n, positions[i], tokens);
        return out;
      },
      py::arg("logits"), py::arg("positions"), py::arg("history"), py::arg("params"),
      "The token chosen at each position from the same logits: the sampler by itself.");
}

void bind_engine(py::module_& m) {
  py::class_<Engine, std::shared_ptr<Engine>>(m, "Engine")
      .def(py::init([](const py::object& target, const py::object& drafter, int threads,
                       int64_t context, int64_t prefill_chunk, bool kv_f16, bool mmap,
                       const std::string& isa, int64_t kv_budget) {
             EngineOptions o;
             o.threads = threads;
             o.context = context;
             o.prefill_chunk = prefill_chunk;
             o.kv_f16 = kv_f16;
             o.mmap = mmap;
             o.isa = isa;
             o.kv_budget = kv_budget;
             const std::string target_path = path_of(target);
             const std::string drafter_path = drafter.is_none() ? "" : path_of(drafter);
             if (!drafter.is_none() && drafter_path.empty())
               throw Error(ErrorKind::kArgument, "the path of the drafter is empty");
             py::gil_scoped_release release;
             return Engine::open(target_path, drafter_path, o);
           }),
           py::arg("target"), py::arg("drafter"), py::arg("threads"), py::arg("context"),
           py::arg("prefill_chunk"), py::arg("kv_f16"), py::arg("mmap"), py::arg("isa"),
           py::arg("kv_budget") = 0)
      .def_property_readonly("has_drafter", &Engine::has_drafter)
      .def_property_readonly("context", &Engine::context)
      .def_property_readonly("vocab_size", [](const Engine& e) { return e.config().vocab; })
      .def_property_readonly("threads", &Engine::threads)
      .def_property_readonly("backend", &Engine::backend_name)
      .def_property_readonly("target_bytes", &Engine::target_bytes)
      .def_property_readonly("drafter_bytes", &Engine::drafter_bytes)
      .def_property_readonly("tokenizer", &Engine::need_tokenizer,
                             py::return_value_policy::reference_internal)
      .def_property_readonly("chat_template",
                             [](const Engine& e) -> py::object {
                               const auto text = e.file().get_string("tokenizer.chat_template");
                               return text ? py::bytes(*text) : py::object(py::none());
                             })
      .def_property_readonly("kv_budget", &Engine::kv_budget)
      .def("clear_cache", &Engine::clear_cache, NoGil())
      .def_property_readonly("has_tokenizer",
                             [](const Engine& e) { return e.tokenizer() != nullptr; })
      .def("logits",
           [](Engine& e, const std::vector<int32_t>& ids) {
             e.check_ids(ids, 0);
             FloatArray out({static_cast<py::ssize_t>(ids.size()),
                             static_cast<py::ssize_t>(e.config().vocab)});
             float* data = out.mutable_data();
             py::gil_scoped_release release;
             e.logits(ids, data);
             return out;
           })
      .def("score",
           [](Engine& e, const std::vector<int32_t>& ids, int64_t first) {
             std::vector<double> scores;
             {
               py::gil_scoped_release release;
               scores = score(e, ids, first, check_signals);
             }
             return array_of(scores);
           })
      .def("compare",
           [](Engine& p, Engine& q, const std::vector<int32_t>& ids, int64_t first) {
             Comparison c;
             {
               py::gil_scoped_release release;
               c = compare(p, q, ids, first, check_signals);
             }
             return py::make_tuple(array_of(c.log_p), array_of(c.log_q), array_of(c.divergence),
                                   array_of(c.same_best));
           })
      .def(
          "set_costs",
          [](Engine& e, const std::vector<std::tuple<int, int64_t, double>>& verify,
             const std::vector<std::tuple<int, int64_t, double>>& draft) {
            std::vector<Engine::VerifyCost> v;
            for (const auto& [rows, context, seconds] : verify)
              v.push_back({rows, context, seconds});
            std::vector<Engine::DraftCost> d;
            for (const auto& [step, context, seconds] : draft)
              d.push_back({step, context, seconds});
            e.set_costs(v, d);
          },
          py::arg("verify"), py::arg("draft"))
      .def("draft_features",
           [](Engine& e, const std::vector<int32_t>& ids, int steps) {
             std::vector<float> values;
             {
               py::gil_scoped_release release;
               values = draft_features(e, ids, steps, check_signals);
             }
             const auto rounds = static_cast<py::ssize_t>(ids.size()) - 1;
             const auto width = static_cast<py::ssize_t>(values.size()) / (rounds * steps);
             return FloatArray({rounds, static_cast<py::ssize_t>(steps), width}, values.data());
           })
      .def("draft", [](Engine& e, const std::vector<int32_t>& ids, int k) {
        DraftTrace t;
        {
          py::gil_scoped_release release;
          t = e.draft(ids, k);
        }
        const auto rows = static_cast<py::ssize_t>(k);
        const auto hidden = static_cast<py::ssize_t>(t.hidden.size()) / rows;
        return py::make_tuple(
            t.tokens,
            FloatArray({rows, static_cast<py::ssize_t>(e.config().vocab)}, t.logits.data()),
            FloatArray({rows, hidden}, t.hidden.data()));
      });
}

void bind_generation(py::module_& m) {
  py::class_<Generation>(m, "Generation")
      .def(py::init([](std::shared_ptr<Engine> engine, std::vector<int32_t> prompt,
                       const SamplingParams& sampling, int64_t max_tokens,
                       const std::vector<py::object>& stop, int draft, bool ignore_eos) {
             GenerationParams p;
             p.sampling = sampling;
             p.max_tokens = max_tokens;
             for (const py::object& s : stop) p.stop.push_back(utf8(s));
             p.draft = draft;
             p.ignore_eos = ignore_eos;
             py::gil_scoped_release release;
             return std::make_unique<Generation>(std::move(engine), std::move(prompt),
                                                 std::move(p));
           }),
           py::arg("engine"), py::arg("prompt"), py::arg("sampling"), py::arg("max_tokens"),
           py::arg("stop"), py::arg("draft"), py::arg("ignore_eos"))
      .def("step",
           [](Generation& g) {
             std::vector<Emitted> emitted;
             {
               py::gil_scoped_release release;
               emitted = g.step();
             }
             py::list out;
             for (const Emitted& e : emitted)
               out.append(py::make_tuple(e.id, draft_source_name(e.source), e.text));
             return out;
           })
      .def_property_readonly("done", &Generation::done)
      .def_property_readonly(
          "finish_reason",
          [](const Generation& g) { return finish_reason_name(g.finish_reason()); })
      .def_property_readonly("tail", &Generation::tail)
      .def_property_readonly("stats", [](const Generation& g) { return stats_dict(g.stats()); })
      .def_property_readonly("depth_report", [](const Generation& g) -> py::object {
        using namespace py::literals;
        const DepthReport& r = g.depth_report();
        if (r.verify_seconds.empty()) return py::none();
        return py::dict(
            "verify_seconds"_a = r.verify_seconds, "first_draft_seconds"_a = r.draft_seconds[0],
            "draft_seconds"_a = r.draft_seconds[1], "drafter_acceptance"_a = r.drafter_acceptance,
            "lookup_acceptance"_a = r.lookup_acceptance,
            "expected_tokens_per_second"_a = r.expected_rate);
      });
}

void bind_bench(py::module_& m) {
  py::class_<Bench>(m, "Bench")
      .def(py::init<std::shared_ptr<Engine>, bool>(), py::arg("engine"), py::arg("plain_head"),
           NoGil())
      .def("prefill", &Bench::prefill, py::arg("tokens"), NoGil())
      .def("verify", &Bench::verify, py::arg("context"), py::arg("rows"), NoGil())
      .def("draft", &Bench::draft, py::arg("context"), py::arg("steps"), py::arg("plain_head"),
           NoGil())
      .def("kv_bytes", &Bench::kv_bytes, py::arg("context"))
      .def_property_readonly("ordered_head", &Bench::ordered_head)
      .def_property_readonly("both_heads", &Bench::both_heads)
      .def_property_readonly("plain_head_bytes", &Bench::plain_head_bytes);
  py::class_<ReadBandwidth>(m, "ReadBandwidth")
      .def(py::init<int, int64_t>(), py::arg("threads"), py::arg("bytes") = 0, NoGil())
      .def("plain", &ReadBandwidth::plain, NoGil())
      .def("prefetched", &ReadBandwidth::prefetched, NoGil())
      .def_property_readonly("bytes", &ReadBandwidth::bytes);
}

// The geometry of a block type that is given by its number.
const DTypeInfo& block_type(uint32_t type, bool known) {
  const DTypeInfo* info = dtype_info(type);
  if (!info || !known)
    throw Error(ErrorKind::kArgument,
                format("type %u (%s) is not for this", type, info ? info->name : "unknown"));
  return *info;
}

void bind_quantize(py::module_& m) {
  m.def(
      "encode",
      [](uint32_t type, const FloatInput& values, const std::optional<FloatInput>& importance) {
        const auto n = static_cast<int64_t>(values.size());
        const DTypeInfo& info = block_type(type, encodable(static_cast<DType>(type)));
        if (n % info.block != 0 || (importance && importance->size() != values.size()))
          throw Error(ErrorKind::kArgument,
                      format("%lld values are no whole blocks of %s, or not as many as have an "
                             "importance",
                             static_cast<long long>(n), info.name));
        py::array_t<uint8_t> out(static_cast<py::ssize_t>(n / info.block * info.bytes));
        const float* w = importance ? importance->data() : nullptr;
        const float* x = values.data();
        uint8_t* bytes = out.mutable_data();
        py::gil_scoped_release release;
        encode(static_cast<DType>(type), x, n, w, bytes);
        return out;
      },
      py::arg("type"), py::arg("values"), py::arg("importance") = py::none());
  m.def(
      "decode",
      [](uint32_t type, const ByteInput& data) {
        const auto n = static_cast<int64_t>(data.size());
        const DTypeInfo& info = block_type(type, dtype_info(type) != nullptr);
        if (n % info.bytes != 0)
          throw Error(ErrorKind::kArgument, format("%lld bytes are no whole blocks of %s",
                                                   static_cast<long long>(n), info.name));
        FloatArray out(static_cast<py::ssize_t>(n / info.bytes * info.block));
        const uint8_t* blocks = data.data();
        float* values = out.mutable_data();
        py::gil_scoped_release release;
        DecodedBlock decoded;
        for (int64_t i = 0; i < n / info.bytes; ++i) {
          if (!decode_block(static_cast<DType>(type), blocks + i * info.bytes, &decoded))
            throw Error(ErrorKind::kFile,
                        format("the scale of block %lld is not finite; the file is damaged",
                               static_cast<long long>(i)));
          dequantize_block(decoded, info.block, values + i * info.block);
        }
        return out;
      },
      py::arg("type"), py::arg("data"));
  py::class_<ActivationSums>(m, "ActivationSums")
      .def(py::init([](const py::object& target, int threads, int64_t context) {
             const std::string path = path_of(target);
             py::gil_scoped_release release;
             return std::make_unique<ActivationSums>(path, threads, context);
           }),
           py::arg("target"), py::arg("threads"), py::arg("context"))
      .def("add", &ActivationSums::add, py::arg("ids"), NoGil())
      .def_property_readonly("tokenizer", &ActivationSums::tokenizer,
                             py::return_value_policy::reference_internal)
      .def("entries", [](const ActivationSums& sums) {
        py::list out;
        for (const auto& [name, e] : sums.entries()) {
          const auto matrices = static_cast<py::ssize_t>(e.counts.size());
          const auto cols = static_cast<py::ssize_t>(e.squares.size()) / matrices;
          out.append(py::make_tuple(name, array_of(e.counts),
                                    py::array_t<double>({matrices, cols}, e.squares.data())));
        }
        return out;
      });
}

}  // namespace

PYBIND11_MODULE(_core, m) {
  m.doc() = "The native core of gemtp_native; use the package, not this module.";
  py::register_exception_translator([](std::exception_ptr p) {
    try {
      if (p) std::rethrow_exception(p);
    } catch (const Error& e) {
      raise(e.kind(), e.what());
    } catch (const std::bad_alloc&) {
      raise(ErrorKind::kMemory,
            "not enough memory; use a smaller context or a smaller model, or close other programs");
    }
  });
  bind_file(m);
  bind_types(m);
  bind_tokenizer(m);
  bind_sampling(m);
  bind_engine(m);
  bind_generation(m);
  bind_bench(m);
  bind_quantize(m);
  bind_chat(m);
  m.def("compiler", &compiler);
  m.def("available_cores", &available_cores);
  m.def("default_threads", &default_threads);
  m.def("physical_memory", &physical_memory);
  m.def("available_memory", &available_memory);
  m.def(
      "memory_estimate",
      [](const py::object& target, const py::object& drafter, int64_t context,
         int64_t prefill_chunk, bool kv_f16) {
        EngineOptions o;
        o.context = context;
        o.prefill_chunk = prefill_chunk;
        o.kv_f16 = kv_f16;
        o.check();
        const ModelFiles files = ModelFiles::open(
            path_of(target), drafter.is_none() ? "" : path_of(drafter), /*mmap=*/true);
        const MemoryEstimate e = estimate_memory(files, o);
        using namespace py::literals;
        return py::dict("weights"_a = e.weights, "kv"_a = e.kv, "scratch"_a = e.scratch,
                        "needed"_a = e.needed(true), "tables"_a = e.tables,
                        "context"_a = e.context);
      },
      py::arg("target"), py::arg("drafter"), py::arg("context"), py::arg("prefill_chunk"),
      py::arg("kv_f16"));
  m.def("isas", [] {
    std::vector<std::string> names;
    for (const gemtp_kernels* k : runnable_kernels()) names.emplace_back(k->name);
    return names;
  });
  m.def("selected_isa", [] { return std::string(select_kernels("").name); });
}
