#include "api/python/parts.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "base/error.h"
#include "gguf/blocks.h"
#include "measure/activation_sums.h"
#include "quantize/encode.h"

namespace py = pybind11;

namespace gemtp {
namespace {

using ByteInput = py::array_t<uint8_t, py::array::c_style>;

// The geometry of a block type, given its number.
const DTypeInfo& block_type(uint32_t type, bool known) {
  const DTypeInfo* info = dtype_info(type);
  if (!info || !known)
    throw Error(ErrorKind::kArgument,
                format("type %u (%s) is not for this", type, info ? info->name : "unknown"));
  return *info;
}

}  // namespace

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
        const ReleasedGil release;
        if (w && !std::all_of(w, w + n, [](float v) { return v >= 0 && std::isfinite(v); }))
          throw Error(ErrorKind::kArgument, "an importance is negative or no finite number");
        const int64_t bad = encode(static_cast<DType>(type), x, n, w, bytes);
        if (bad)
          throw Error(
              ErrorKind::kModel,
              format("%lld blocks have values that no scale of %s reaches; write the tensor "
                     "as bf16 or f32",
                     static_cast<long long>(bad), info.name));
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
        const ReleasedGil release;
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
  Class<ActivationSums, std::shared_ptr<ActivationSums>>(m, "ActivationSums")
      .def(py::init([](const py::object& target, int threads, int64_t context,
                       const std::string& device, const std::string& gpu_layers) {
             const std::string path = path_of(target);
             EngineOptions options;
             options.threads = threads;
             options.device = device;
             options.gpu_layers = gpu_layers;
             const ReleasedGil release;
             return std::make_shared<ActivationSums>(path, context, options);
           }),
           py::arg("target"), py::arg("threads"), py::arg("context"), py::arg("device") = "",
           py::arg("gpu_layers") = "")
      .def("add", &ActivationSums::add, py::arg("ids"), NoGil())
      .def_property_readonly("tokenizer",
                             [](const std::shared_ptr<ActivationSums>& sums) -> py::object {
                               const Tokenizer* t = sums->tokenizer();
                               return t ? py::cast(part_of(sums, *t)) : py::none();
                             })
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

}  // namespace gemtp
