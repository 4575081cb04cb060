// Releases the GIL for work of the core, and takes it for Python functions that the core calls
// meanwhile.
//
// When the interpreter ends, it does not wait for daemon threads, which may be at work. Up to
// Python 3.13 such a thread is ended when it requests the GIL, by unwinding its stack, which would
// abort the process in C++ code like ours. From 3.14 on it sleeps there forever; this code makes it
// sleep in all versions. If the thread is inside a call of Python, unwinding would begin below
// frames that are not ours. Therefore the end of the interpreter waits, for at most a second, until
// all such calls have returned, and new ones are refused.
#pragma once

#include <pybind11/pybind11.h>

#include <exception>
#include <initializer_list>
#include <memory>
#include <utility>

#include "base/error.h"

namespace gemtp {

/// Releases the GIL, which this thread must hold, for the lifetime of the object.
class ReleasedGil {
 public:
  ReleasedGil() noexcept;
  ~ReleasedGil();
  ReleasedGil(const ReleasedGil&) = delete;
  ReleasedGil& operator=(const ReleasedGil&) = delete;

 private:
  friend class TakenGil;
  PyThreadState* state_;
  ReleasedGil* outer_;  // enclosing one of this thread, or null
};

/// Takes the GIL for the lifetime of the object. Converts to false if that failed because the
/// interpreter is ending; the thread that ends it still gets the GIL.
class TakenGil {
 public:
  TakenGil() noexcept;
  ~TakenGil();
  TakenGil(const TakenGil&) = delete;
  TakenGil& operator=(const TakenGil&) = delete;
  explicit operator bool() const { return taken_; }

 private:
  bool taken_;
  ReleasedGil* released_ = nullptr;  // what had released it in this thread; null: nothing
  PyGILState_STATE state_{};
};

/// Releases references, in destructors on any thread; they are leaked while the interpreter ends.
void give_up(std::initializer_list<pybind11::object*> objects) noexcept;

/// An exception raised by Python code that the core called, on its way through the core. Unlike
/// error_already_set it can be rethrown and be destroyed by any thread. The exception itself can be
/// handed to Python only once, because its traceback refers to frames that hold its owner.
class PythonError : public std::exception {
 public:
  explicit PythonError(const pybind11::error_already_set& error);  // requires the GIL
  void restore() const;  // requires the GIL; Error{kArgument} on the second call
  const char* what() const noexcept override { return "Python code raised an exception"; }

 private:
  std::shared_ptr<pybind11::object> exception_;
};

/// PyObject_CallObject() for call().
PyObject* call_object(PyObject* function, PyObject* args) noexcept;

/// Calls a Python function for call_python().
template <class... Args>
pybind11::object call(const pybind11::object& function, Args&&... args) {
  const pybind11::tuple given = pybind11::make_tuple(std::forward<Args>(args)...);
  PyObject* result = call_object(function.ptr(), given.ptr());
  if (!result) throw pybind11::error_already_set();
  return pybind11::reinterpret_steal<pybind11::object>(result);
}

/// Calls fn() with the GIL, for the core. Throws PythonError, and Error{kCancelled} while the
/// interpreter ends.
template <class Fn>
auto call_python(const Fn& fn) {
  const TakenGil gil;
  if (!gil) throw Error(ErrorKind::kCancelled, "Python is ending");
  try {
    return fn();
  } catch (const pybind11::error_already_set& e) {
    throw PythonError(e);
  }
}

/// Called once, when the module is imported.
void watch_end_of_interpreter();

}  // namespace gemtp
