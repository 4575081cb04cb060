#include "api/python/parts.h"
#include "backend/cpu/pack.h"
#include "backend/cpu/packed_form.h"
#include "base/error.h"
#include "choose/sampling_params.h"
#include "engine/model_files.h"
#include "gguf/blocks.h"
#include "gguf/reader.h"

namespace py = pybind11;

namespace gemtp {
namespace {

py::object metadata_value(const GgufFile& file, const std::string& key) {
  const Value& v = *file.find(key);
  const auto scalar = v.type != ValueType::kArray;
  switch (scalar ? v.type : v.element) {
    case ValueType::kString: {
      if (scalar) return py::cast(*file.get_string(key));
      const Strings strings = *file.get_strings(key);
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

void bind_file(py::module_& m) {
  Class<GgufFile, std::shared_ptr<GgufFile>>(m, "GgufFile")
      .def(py::init([](const py::object& path) {
             return std::const_pointer_cast<GgufFile>(GgufFile::open(path_of(path)));
           }),
           py::arg("path"))
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
      .def_property_readonly("sampling", &sampling_dict)
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
            const WeightSource source{static_cast<DType>(t->type),
                                      rows,
                                      t->shape[0],
                                      nullptr,
                                      t->name,
                                      &f.file_of(*t),
                                      t->offset};
            FloatArray out(
                {static_cast<py::ssize_t>(count), static_cast<py::ssize_t>(t->shape[0])});
            float* data = out.mutable_data();
            const ReleasedGil release;
            Scratch<uint8_t> buffer;
            for (int64_t i = 0; i < count; ++i)
              dequantize(source, first + i, 0, source.cols, buffer, data + i * source.cols);
            source.file->check_unchanged();
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

// Returns the config as a dict. A value of 0 is not given by the file, or unknown because of a
// problem.
py::dict model_dict(const Config& c) {
  py::list layers;
  for (const LayerConfig& l : c.layers)
    layers.append(py::make_tuple(l.sliding, l.heads, l.kv_heads, l.head_dim, l.ffn,
                                 static_cast<int>(layers.size()) < c.kv_layers));
  using namespace py::literals;
  return py::dict("arch"_a = c.arch, "drafter"_a = c.drafter, "backbone"_a = c.backbone,
                  "centroids"_a = c.centroids, "top_k"_a = c.centroid_top_k, "layers"_a = layers);
}

void bind_examined(py::module_& m) {
  Class<ExaminedFile, std::shared_ptr<ExaminedFile>>(m, "ExaminedFile")
      .def(py::init([](const std::shared_ptr<GgufFile>& file) {
             return std::make_shared<ExaminedFile>(examine(file));
           }),
           py::arg("file"))
      .def_readonly("problems", &ExaminedFile::problems)
      .def_readonly("end_tokens", &ExaminedFile::end_tokens)
      .def_property_readonly("model", [](const ExaminedFile& e) { return model_dict(e.config); })
      .def(
          "pair_problems",
          [](const ExaminedFile& target, const ExaminedFile& drafter) {
            return pair_problems(target.config, drafter.config).sentences();
          },
          py::arg("drafter"));
}

}  // namespace

py::dict sampling_dict(const GgufFile& file) {
  py::dict out;
  for (const RecommendedOption& p : recommended_sampling(file))
    out[p.name] =
        p.whole ? py::object(py::int_(static_cast<int64_t>(p.value))) : py::float_(p.value);
  return out;
}

void bind_files(py::module_& m) {
  bind_file(m);
  bind_examined(m);
  bind_types(m);
}

}  // namespace gemtp
