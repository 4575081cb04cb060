// Shared declarations of the Python binding: the binding functions of all parts, and conversions.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <typeinfo>
#include <utility>
#include <vector>

#include "api/python/gil.h"

namespace gemtp {

class GgufFile;

void bind_files(pybind11::module_& m);
void bind_tokenizer(pybind11::module_& m);
void bind_constraint(pybind11::module_& m);
void bind_engine(pybind11::module_& m);
void bind_generation(pybind11::module_& m);
void bind_quantize(pybind11::module_& m);
void bind_chat(pybind11::module_& m);

using NoGil = pybind11::call_guard<ReleasedGil>;
using FloatArray = pybind11::array_t<float, pybind11::array::c_style>;
using FloatInput = pybind11::array_t<float, pybind11::array::c_style | pybind11::array::forcecast>;

/// For class_: raises MemoryError if there is no memory for an object.
pybind11::custom_type_setup checked_allocation();

/// A class_ whose objects are constructed completely or not at all; pybind11 itself crashes if
/// memory runs out meanwhile. Constructors are functions that return a holder: py::init(function).
template <class T, class... Options>
class Class : public pybind11::class_<T, Options...> {
 public:
  Class(pybind11::module_& m, const char* name)
      : pybind11::class_<T, Options...>(m, name, checked_allocation()) {
    pybind11::detail::type_info* info = pybind11::detail::get_type_info(typeid(T));
    register_unchecked = std::exchange(info->init_instance, register_object);
  }

 private:
  // If this fails, the holder still owns the value, and the object must not free it too.
  static void register_object(pybind11::detail::instance* object, const void* holder) {
    try {
      register_unchecked(object, holder);
    } catch (...) {
      const auto* info = pybind11::detail::get_type_info(typeid(T));
      object->get_value_and_holder(info).value_ptr() = nullptr;
      throw;
    }
  }
  static inline void (*register_unchecked)(pybind11::detail::instance*, const void*) = nullptr;
};

/// A pointer to a part that keeps the whole alive.
template <class Whole, class Part>
std::shared_ptr<Part> part_of(const std::shared_ptr<Whole>& whole, const Part& part) {
  return std::shared_ptr<Part>(whole, const_cast<Part*>(&part));
}

/// Converts str or bytes to UTF-8. Throws Error{kArgument} for anything else, and for a str with
/// lone surrogates, which cannot be encoded.
std::string utf8(const pybind11::object& text);
std::string path_of(const pybind11::object& path);
/// Decodes text of a file for display: invalid UTF-8 is replaced, not rejected.
pybind11::object lossy(std::string_view s);
/// recommended_sampling() as a dict by name.
pybind11::dict sampling_dict(const GgufFile& file);
/// Lets Ctrl-C, or another signal that Python handles, end work that has released the GIL.
void check_signals();

/// Converts ids to list[int]; pybind11's own conversion crashes if memory runs out meanwhile.
pybind11::list list_of(const std::vector<int32_t>& ids);

template <class T>
pybind11::array_t<T> array_of(const std::vector<T>& values) {
  return pybind11::array_t<T>(static_cast<pybind11::ssize_t>(values.size()), values.data());
}

}  // namespace gemtp
