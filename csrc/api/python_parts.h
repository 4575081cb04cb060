// What the files of the Python binding share: the binding of each part, and conversions.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace gemtp {

class GgufFile;

void bind_files(pybind11::module_& m);
void bind_tokenizer(pybind11::module_& m);
void bind_constraint(pybind11::module_& m);
void bind_engine(pybind11::module_& m);
void bind_generation(pybind11::module_& m);
void bind_quantize(pybind11::module_& m);
void bind_chat(pybind11::module_& m);

using NoGil = pybind11::call_guard<pybind11::gil_scoped_release>;
using FloatArray = pybind11::array_t<float, pybind11::array::c_style>;
using FloatInput = pybind11::array_t<float, pybind11::array::c_style | pybind11::array::forcecast>;

/// str or bytes as UTF-8. Error{kArgument} for anything else, and for a str with lone surrogates,
/// which have no UTF-8.
std::string utf8(const pybind11::object& text);
std::string path_of(const pybind11::object& path);
/// Of text in a file that is being looked at: invalid UTF-8 is shown, not refused.
pybind11::object lossy(std::string_view s);
/// recommended_sampling(), by name.
pybind11::dict sampling_dict(const GgufFile& file);
/// Lets Ctrl-C, or another signal that Python handles, end work that has released the GIL.
void check_signals();

template <class T>
pybind11::array_t<T> array_of(const std::vector<T>& values) {
  return pybind11::array_t<T>(static_cast<pybind11::ssize_t>(values.size()), values.data());
}

}  // namespace gemtp
