// The GIL, for work that is done without it and for Python that the core calls meanwhile.
//
// When the interpreter ends, threads may be at work that it does not wait for: daemon threads. Up
// to Python 3.13 such a thread is ended where it asks for the GIL, by unwinding its stack, which
// C++ code like ours cannot bear: the process would abort. From 3.14 on it sleeps there for ever,
// and here it does in all versions. Where it has called Python, unwinding would begin below frames
// that are not ours; so before the interpreter ends it waits, for a second at most, until all such
// calls have returned, and new ones are refused.
#pragma once

#include <pybind11/pybind11.h>

#include <exception>
#include <initializer_list>
#include <memory>
#include <utility>

#include "base/error.h"

namespace gemtp {

/// While it lives this thread has not the GIL, which it had before.
class ReleasedGil {
 public:
  ReleasedGil() noexcept;
  ~ReleasedGil();
  ReleasedGil(const ReleasedGil&) = delete;
  ReleasedGil& operator=(const ReleasedGil&) = delete;

 private:
  friend class TakenGil;
  PyThreadState* state_;
  ReleasedGil* outer_;  // of this thread, or null
};

/// While it lives this thread has the GIL, if it converts to true: not while the interpreter ends,
/// but for the thread that ends it.
class TakenGil {
 public:
  TakenGil() noexcept;
  ~TakenGil();
  TakenGil(const TakenGil&) = delete;
  TakenGil& operator=(const TakenGil&) = delete;
  explicit operator bool() const { return taken_; }

 private:
  bool taken_;
  ReleasedGil* released_ = nullptr;  // what took it from this thread; null: nothing did
  PyGILState_STATE state_{};
};

/// Gives references back, for destructors on any thread; while the interpreter ends they stay.
void give_up(std::initializer_list<pybind11::object*> objects) noexcept;

/// What Python code that the core called has raised, on its way through the core. Unlike
/// error_already_set it can be thrown again and be destroyed by any thread. The exception itself is
/// given to Python once: it knows the frames that it came through, which hold what has kept it.
class PythonError : public std::exception {
 public:
  explicit PythonError(const pybind11::error_already_set& error);  // with the GIL
  void restore() const;  // with the GIL; Error{kArgument} if not for the first time
  const char* what() const noexcept override { return "Python code raised an exception"; }

 private:
  std::shared_ptr<pybind11::object> exception_;
};

/// PyObject_CallObject(), for call().
PyObject* call_object(PyObject* function, PyObject* args) noexcept;

/// Calls a Python function for call_python().
template <class... Args>
pybind11::object call(const pybind11::object& function, Args&&... args) {
  const pybind11::tuple given = pybind11::make_tuple(std::forward<Args>(args)...);
  PyObject* result = call_object(function.ptr(), given.ptr());
  if (!result) throw pybind11::error_already_set();
  return pybind11::reinterpret_steal<pybind11::object>(result);
}

/// fn() with the GIL, for the core. PythonError; Error{kCancelled} while the interpreter ends.
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

/// Once, when the module is imported.
void watch_end_of_interpreter();

}  // namespace gemtp
