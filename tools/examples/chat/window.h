// The window: conversation, input, and a line of figures. It never waits for the worker; what that
// tells comes through a queue.
#pragma once

#include <FL/Fl_Double_Window.H>
#include <FL/Fl_Text_Buffer.H>
#include <FL/Fl_Text_Editor.H>

#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "theme.h"
#include "transcript.h"
#include "worker.h"

/// What is typed next. Enter sends it, Shift+Enter begins a new line.
class Prompt : public Fl_Text_Editor {
 public:
  explicit Prompt(std::function<void()> send);
  ~Prompt() override { buffer(nullptr); }
  std::string text() const;
  void clear() { text(""); }
  void text(const std::string& text) { text_.text(text.c_str()); }
  /// Lines on the screen, as they are wrapped.
  int lines() const;
  void apply_theme();
  void hint(const std::string& hint);
  int handle(int event) override;

 protected:
  void draw() override;

 private:
  std::function<void()> send_;
  Fl_Text_Buffer text_;
  std::string hint_;
};

/// Figures of the latest answer, what the colours mean, and how far a load or a prompt is.
class StatusLine : public Fl_Widget {
 public:
  StatusLine() : Fl_Widget(0, 0, 1, 1) {}
  /// Parts, the most important first: as many are shown as there is room for.
  void say(std::vector<std::string> parts, bool error = false);
  void progress(double fraction);  // below 0: none

 protected:
  void draw() override;

 private:
  std::string shown_in(int width) const;

  std::vector<std::string> parts_;
  bool error_ = false;
  double fraction_ = -1;
};

class ChatWindow : public Fl_Double_Window {
 public:
  struct Look {
    int width, height;
    bool dark;
    int chat;                // 1: chats, 0: continues text, -1: as the model was made for
    std::string transcript;  // file to keep the conversation in; empty: none
  };

  ChatWindow(const Settings& settings, const Look& look);
  void resize(int x, int y, int w, int h) override;
  int handle(int event) override;

 protected:
  void draw() override;

 private:
  enum class State { kNoModel, kLoading, kReady, kAnswering };

  void ask_for_model();
  void load();
  void send();
  void stop();
  void start_anew();
  void toggle_chat();
  void toggle_theme();
  void zoom(int step);
  void receive(const Event& event);
  void expect_events();
  void take_events();
  void post(Event event);  // from the worker's thread
  void figures(const gemtp_stats& stats, bool done);
  void enter(State state);
  void apply_theme();
  void layout();
  void keep_transcript();
  std::string model_name() const;

  Settings settings_;
  Look look_;
  State state_ = State::kNoModel;
  bool chat_ = true;
  uint64_t job_ = 0;    // that is waited for
  std::string sent_;    // the latest
  bool began_ = false;  // something was sent since the conversation began
  int text_size_;
  int bottom_ = 0;  // of the conversation's frame; its lines may end above it
  Transcript transcript_;
  Prompt prompt_;
  StatusLine status_;
  FlatButton open_, anew_, mode_, tint_, act_;

  using Clock = std::chrono::steady_clock;
  Clock::time_point taken_{};  // when events were looked at, and how long it took
  double taking_ = 0;
  std::mutex mutex_;
  std::vector<Event> events_;
  Worker worker_;  // last: tells the rest
};
