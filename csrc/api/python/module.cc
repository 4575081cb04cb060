// The Python binding: converts arguments and results, releases the GIL around work, and turns Error
// into the classes of gemtp_native.errors. It has no logic of its own.
#include <cstring>
#include <iterator>
#include <new>
#include <stdexcept>
#include <string>

#include "api/python/parts.h"
#include "backend/cpu/dispatch.h"
#include "backend/gpu/cuda/cuda_device.h"
#include "base/build_info.h"
#include "base/cpu_info.h"
#include "base/error.h"
#include "engine/devices.h"
#include "engine/engine.h"
#include "engine/memory.h"
#include "engine/self_test.h"
#include "text/tokenizer.h"

namespace py = pybind11;

namespace gemtp {

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
  const py::object encoded = call(py::module_::import("os").attr("fsencode"), path);
  return encoded.cast<std::string>();
}

py::object lossy(std::string_view s) {
  return py::reinterpret_steal<py::object>(
      PyUnicode_DecodeUTF8(s.data(), static_cast<Py_ssize_t>(s.size()), "replace"));
}

py::list list_of(const std::vector<int32_t>& ids) {
  py::list out;
  for (const int32_t id : ids) {
    const auto number = py::reinterpret_steal<py::object>(PyLong_FromLong(id));
    if (!number || PyList_Append(out.ptr(), number.ptr()) != 0) throw py::error_already_set();
  }
  return out;
}

void check_signals() {
  call_python([] {
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
  });
}

namespace {

// Allocates an object for pybind11, which does not check the result.
PyObject* allocate_object(PyTypeObject* type, Py_ssize_t n) {
  PyObject* object = PyType_GenericAlloc(type, n);
  if (!object) {
    PyErr_Clear();
    throw std::bad_alloc();
  }
  return object;
}

PyObject* new_object(PyTypeObject* type, PyObject*, PyObject*) noexcept {
  try {
    return py::detail::make_new_instance(type);
  } catch (const std::exception&) {
    return PyErr_NoMemory();
  }
}

}  // namespace

py::custom_type_setup checked_allocation() {
  return py::custom_type_setup([](PyHeapTypeObject* type) {
    type->ht_type.tp_alloc = allocate_object;
    type->ht_type.tp_new = new_object;
  });
}

void bind_tokenizer(py::module_& m) {
  Class<Tokenizer, std::shared_ptr<Tokenizer>>(m, "Tokenizer")
      .def(py::init([](const py::object& path) {
             return std::make_shared<Tokenizer>(*GgufFile::open(path_of(path)));
           }),
           py::arg("path"))
      .def(
          "encode",
          [](const Tokenizer& t, const py::object& text, bool add_bos, bool special) {
            const std::string s = utf8(text);
            std::vector<int32_t> ids;
            {
              const ReleasedGil release;
              ids = t.encode(s, add_bos, special);
            }
            return list_of(ids);
          },
          py::arg("text"), py::arg("add_bos") = false, py::arg("special") = false)
      .def(
          "encode_chat",
          [](const Tokenizer& t, const std::string& text,
             const std::vector<std::pair<size_t, size_t>>& literal) {
            std::vector<TextRange> ranges;
            for (const auto& [begin, end] : literal) ranges.push_back({begin, end});
            std::vector<int32_t> ids;
            {
              const ReleasedGil release;
              ids = t.encode_chat(text, ranges, true);
            }
            return list_of(ids);
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
      .def_property_readonly("end_tokens",
                             [](const Tokenizer& t) { return list_of(t.end_tokens()); })
      .def_property_readonly("suppressed",
                             [](const Tokenizer& t) { return list_of(t.suppressed()); })
      .def_property_readonly("control_tokens",
                             [](const Tokenizer& t) {
                               py::list out;
                               for (const std::string& text : t.control_tokens())
                                 out.append(lossy(text));
                               return out;
                             })
      .def("spelled_control",
           [](const Tokenizer& t, const py::object& text) {
             return lossy(t.spelled_control(utf8(text)));
           })
      .def("find", &Tokenizer::find, py::arg("token_text"))
      .def("token_text", [](const Tokenizer& t, int32_t id) { return lossy(t.token_text(id)); });
}

namespace {

constexpr ErrorKind kKinds[] = {ErrorKind::kFile,    ErrorKind::kModel,     ErrorKind::kArgument,
                                ErrorKind::kContext, ErrorKind::kCancelled, ErrorKind::kMemory,
                                ErrorKind::kDevice,  ErrorKind::kInternal};

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
    case ErrorKind::kDevice:
      return "DeviceError";
    case ErrorKind::kInternal:
      return "Error";
  }
  return "Error";
}

// The error classes are looked up when the module is imported, so that raising one needs no import.
PyObject* error_classes[std::size(kKinds)];

void look_up_error_classes() {
  const py::module_ errors = py::module_::import("gemtp_native.errors");
  for (const ErrorKind kind : kKinds)
    error_classes[static_cast<size_t>(kind)] =
        py::object(errors.attr(error_class(kind))).release().ptr();
}

void raise(ErrorKind kind, const char* message) {
  // File names may hold bytes that are not UTF-8.
  const py::object text = py::reinterpret_steal<py::object>(
      PyUnicode_DecodeUTF8(message, static_cast<Py_ssize_t>(std::strlen(message)), "replace"));
  if (text) PyErr_SetObject(error_classes[static_cast<size_t>(kind)], text.ptr());
}

}  // namespace

}  // namespace gemtp

using namespace gemtp;

PYBIND11_MODULE(_core_of_main, m) {
  m.doc() = "The native core of gemtp_native; use the package, not this module.";
  py::register_exception_translator([](std::exception_ptr p) {
    try {
      if (p) std::rethrow_exception(p);
    } catch (const Error& e) {
      raise(e.kind(), e.what());
    } catch (const std::bad_alloc&) {
      raise(ErrorKind::kMemory,
            "not enough memory; use a smaller context or a smaller model, or close other programs");
    } catch (const PythonError& e) {
      try {
        e.restore();
      } catch (const Error& again) {
        raise(again.kind(), again.what());
      }
    } catch (const std::runtime_error&) {
      // pybind11 throws this if Python has run out of memory.
      if (!PyErr_Occurred() || !PyErr_ExceptionMatches(PyExc_MemoryError)) throw;
    }
  });
  look_up_error_classes();
  watch_end_of_interpreter();
  bind_files(m);
  bind_tokenizer(m);
  bind_engine(m);
  bind_constraint(m);
  bind_generation(m);
  bind_quantize(m);
  bind_chat(m);
  m.def("compiler", &compiler);
  m.def("available_cores", &available_cores);
  m.def("default_threads", &default_threads);
  m.def("physical_memory", &physical_memory);
  m.def("available_memory", &available_memory);
  m.def(
      "devices",
      [](bool look_for_gpus) {
        std::vector<std::pair<std::string, std::string>> out;
        const ReleasedGil release;
        for (const DeviceInfo& d : devices(look_for_gpus)) out.emplace_back(d.name, d.description);
        return out;
      },
      py::arg("look_for_gpus") = false);
  m.def(
      "self_test",
      [](const std::string& device) {
        SelfTestReport r;
        {
          const ReleasedGil release;
          r = self_test_of(device, check_signals);
        }
        using namespace py::literals;
        return py::dict("device"_a = r.device, "identity"_a = r.identity, "exact"_a = r.exact,
                        "problem"_a = r.problem, "seconds"_a = r.seconds);
      },
      py::arg("device"));
  m.def("has_cuda_kernels", &gpu::cuda_is_built);
  m.def("select_device", &select_device, py::arg("device") = "");
  m.def("isas", [] {
    std::vector<std::string> names;
    for (const gemtp_kernels* k : runnable_kernels()) names.emplace_back(k->name);
    return names;
  });
  m.def("selected_isa", [] { return std::string(select_kernels("").name); });
}

/// Imports the module, but not into a further interpreter of the process, where threads that come
/// back from the core would wait for ever: they know the main interpreter only.
PyMODINIT_FUNC PyInit__core() {
  if (PyInterpreterState_Get() == PyInterpreterState_Main()) return PyInit__core_of_main();
  PyErr_SetString(
      PyExc_ImportError,
      "gemtp_native works in the main interpreter of a process only; give each worker a "
      "process of its own");
  return nullptr;
}
