#include "api/python/gil.h"

#include <atomic>
#include <chrono>
#include <thread>

namespace py = pybind11;

namespace gemtp {
namespace {

constexpr auto kTick = std::chrono::milliseconds(1);
constexpr auto kLongestCall = std::chrono::seconds(1);  // most time that the end waits for calls
constexpr auto kLongestEnd = std::chrono::seconds(2);   // from its beginning until threads sleep

// Atomics, which are always consistent in a forked child.
std::atomic<bool> ending{false};               // exit handlers run or later
std::atomic<std::thread::id> ended_by;         // set before `ending`
std::atomic<int> calls{0};                     // running calls of Python by the core
thread_local ReleasedGil* released = nullptr;  // innermost of this thread; null: it has the GIL

bool ends_for_this_thread() { return ending && ended_by.load() != std::this_thread::get_id(); }

bool finalizing() {
#if PY_VERSION_HEX >= 0x030D0000
  return Py_IsFinalizing() != 0;
#else
  return _Py_IsFinalizing() != 0;
#endif
}

[[noreturn]] void sleep_for_ever() noexcept {
  for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
}

// Takes the GIL back. The catch stops the unwinding of a thread that Python ends here.
void restore(PyThreadState* state) noexcept {
  try {
    PyEval_RestoreThread(state);
  } catch (...) {
    sleep_for_ever();
  }
}

// A thread whose work was cut short because the interpreter ends would report that on stderr, so it
// waits for the end instead. The wait is bounded, because an exit handler may be waiting for this
// thread.
void await_end() noexcept {
  const auto until = std::chrono::steady_clock::now() + kLongestEnd;
  while (!finalizing()) {
    if (std::chrono::steady_clock::now() > until) return;
    std::this_thread::sleep_for(kTick);
  }
  sleep_for_ever();
}

void begin_end() {
  ended_by = std::this_thread::get_id();
  ending = true;
  const ReleasedGil gil;
  const auto until = std::chrono::steady_clock::now() + kLongestCall;
  while (calls > 0 && std::chrono::steady_clock::now() < until) std::this_thread::sleep_for(kTick);
}

void in_forked_child() {
  ending = false;
  calls = 0;
}

}  // namespace

ReleasedGil::ReleasedGil() noexcept : outer_(released) {
  released = this;
  state_ = PyEval_SaveThread();
}

ReleasedGil::~ReleasedGil() {
  if (ends_for_this_thread()) await_end();
  restore(state_);
  released = outer_;
}

TakenGil::TakenGil() noexcept {
  ++calls;
  taken_ = !ends_for_this_thread();
  if (!taken_) {
    --calls;
    return;
  }
  released_ = std::exchange(released, nullptr);
  if (released_) {
    restore(released_->state_);
    return;
  }
  try {
    state_ = PyGILState_Ensure();
  } catch (...) {
    sleep_for_ever();
  }
}

TakenGil::~TakenGil() {
  if (!taken_) return;
  if (released_)
    released_->state_ = PyEval_SaveThread();
  else
    PyGILState_Release(state_);
  released = released_;
  --calls;
}

void give_up(std::initializer_list<py::object*> objects) noexcept {
  const TakenGil gil;
  for (py::object* o : objects) {
    const py::handle kept = o->release();
    if (gil) kept.dec_ref();
  }
}

PythonError::PythonError(const py::error_already_set& error)
    : exception_(new py::object(error.value()), [](py::object* exception) {
        give_up({exception});
        delete exception;
      }) {
  if (error.trace()) PyException_SetTraceback(exception_->ptr(), error.trace().ptr());
}

void PythonError::restore() const {
  if (!*exception_)
    throw Error(ErrorKind::kArgument,
                "an exception of Python code has ended the generation; begin another one");
  const py::object exception = std::move(*exception_);
  PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(exception.ptr())), exception.ptr());
}

PyObject* call_object(PyObject* function, PyObject* args) noexcept {
  try {
    return PyObject_CallObject(function, args);
  } catch (...) {  // as in restore(); C code throws nothing else
    sleep_for_ever();
  }
}

void watch_end_of_interpreter() {
  if (PyInterpreterState_Get() != PyInterpreterState_Main()) return;
  py::module_::import("atexit").attr("register")(py::cpp_function(&begin_end));
  const py::module_ os = py::module_::import("os");
  if (py::hasattr(os, "register_at_fork"))
    os.attr("register_at_fork")(py::arg("after_in_child") = py::cpp_function(&in_forked_child));
}

}  // namespace gemtp
