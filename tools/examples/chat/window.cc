#include "window.h"

#include <FL/Fl.H>
#include <FL/fl_draw.H>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>

#include "model_dialog.h"

namespace {

template <class... Args>
std::string text(const char* format, Args... args) {
  char out[256];
  std::snprintf(out, sizeof out, format, args...);
  return out;
}

// Calls a member function of the window.
template <void (ChatWindow::*Member)()>
void call(Fl_Widget*, void* window) {
  (static_cast<ChatWindow*>(window)->*Member)();
}

int width_of(const std::string& text) { return static_cast<int>(fl_width(text.c_str())); }

constexpr int kWidestChat = 820;  // prose is read badly in longer lines
constexpr int kMostLines = 6;     // of the input, before it scrolls

}  // namespace

// ---- Prompt ----

Prompt::Prompt(std::function<void()> send) : Fl_Text_Editor(0, 0, 1, 1), send_(std::move(send)) {
  buffer(text_);
  box(FL_FLAT_BOX);
  wrap_mode(WRAP_AT_BOUNDS, 0);
  scrollbar_align(0);  // it grows instead, and then follows the cursor
  cursor_style(SIMPLE_CURSOR);
  apply_theme();
}

void Prompt::apply_theme() {
  const Theme& t = theme();
  color(t.raised);
  textcolor(t.ink);
  cursor_color(t.accent);
  selection_color(fl_color_average(t.accent, t.raised, 0.35f));
}

std::string Prompt::text() const {
  char* all = text_.text();
  std::string out = all ? all : "";
  std::free(all);
  return out;
}

// FLTK counts lines that are begun, but for the one behind a newline at the end.
int Prompt::lines() const {
  const int length = text_.length();
  const bool fresh = length == 0 || text_.byte_at(length - 1) == '\n';
  return count_lines(0, length, true) + (fresh ? 1 : 0);
}

void Prompt::hint(const std::string& hint) {
  hint_ = hint;
  redraw();
}

int Prompt::handle(int event) {
  if (event == FL_KEYBOARD && Fl::event_key() == FL_Escape) return 0;  // the window's
  if (event == FL_KEYBOARD && (Fl::event_key() == FL_Enter || Fl::event_key() == FL_KP_Enter) &&
      !Fl::event_state(FL_SHIFT)) {
    send_();
    return 1;
  }
  const int used = Fl_Text_Editor::handle(event);
  if (event == FL_KEYBOARD || event == FL_PASTE) do_callback();  // it may have grown
  return used;
}

void Prompt::draw() {
  Fl_Text_Editor::draw();
  if (text_.length() > 0 || hint_.empty()) return;
  fl_push_clip(x(), y(), w(), h());
  fl_font(textfont(), textsize());
  fl_color(theme().soft);
  fl_draw(hint_.c_str(), text_area.x, text_area.y + fl_height() - fl_descent());
  fl_pop_clip();
}

// ---- StatusLine ----

void StatusLine::say(std::vector<std::string> parts, bool error) {
  parts_ = std::move(parts);
  error_ = error;
  redraw();
}

void StatusLine::progress(double fraction) {
  fraction_ = fraction;
  redraw();
}

void StatusLine::draw() {
  const Theme& t = theme();
  fl_color(t.ground);
  fl_rectf(x(), y(), w(), h());
  int right = x() + w();
  fl_font(FL_HELVETICA, px(13));
  const int base = y() + (h() + fl_height()) / 2 - fl_descent();
  if (fraction_ >= 0) {
    const int width = std::min(px(180), w() / 3), thick = px(6);
    right -= width;
    const int at = y() + (h() - thick) / 2;
    draw_panel(right, at, width, thick, thick / 2, t.line, t.line);
    if (const int done = static_cast<int>(width * std::min(1.0, fraction_)); done > thick)
      draw_panel(right, at, done, thick, thick / 2, t.accent, t.accent);
  } else {
    // What the colours mean, where there is room for it.
    const std::pair<const char*, Fl_Color> legend[] = {
        {"look-up", t.lookup}, {"drafter", t.drafter}, {"target", t.ink}};
    int wanted = 0;
    for (const auto& [name, color] : legend) wanted += width_of(name) + px(28);
    if (wanted + width_of(shown_in(w())) + px(12) <= w())
      for (const auto& [name, color] : legend) {
        right -= width_of(name);
        fl_color(t.soft);
        fl_draw(name, right, base);
        right -= px(14);
        fl_color(color);
        fl_rectf(right, y() + (h() - px(9)) / 2, px(9), px(9));
        right -= px(14);
      }
  }
  const int room = right - x() - px(8);
  fl_push_clip(x(), y(), std::max(0, room), h());
  fl_color(error_ ? t.danger : t.soft);
  fl_draw(shown_in(room).c_str(), x(), base);
  fl_pop_clip();
}

std::string StatusLine::shown_in(int width) const {
  std::string out;
  for (const std::string& part : parts_) {
    const std::string longer = out.empty() ? part : out + "  ·  " + part;
    if (!out.empty() && width_of(longer) > width) break;
    out = longer;
  }
  return out;
}

// ---- ChatWindow ----

ChatWindow::ChatWindow(const Settings& settings, const Look& look)
    : Fl_Double_Window(look.width, look.height),
      settings_(settings),
      look_(look),
      text_size_(px(15)),
      prompt_([this] { send(); }),
      open_("Open…", "Another model (Ctrl+O)"),
      anew_("New", "Begin anew (Ctrl+N)"),
      mode_("Mode: chat", "Whether what you type is a message, or text to go on with"),
      tint_("◐", "Dark or light (Ctrl+D)"),
      act_("Send", "Enter sends, Shift+Enter begins a new line, Esc stops", true),
      worker_([this](Event e) { post(std::move(e)); }) {
  end();
  open_.callback(call<&ChatWindow::ask_for_model>, this);
  anew_.callback(call<&ChatWindow::start_anew>, this);
  mode_.callback(call<&ChatWindow::toggle_chat>, this);
  tint_.callback(call<&ChatWindow::toggle_theme>, this);
  act_.callback(
      [](Fl_Widget*, void* self) {
        auto* w = static_cast<ChatWindow*>(self);
        w->state_ == State::kReady ? w->send() : w->stop();
      },
      this);
  prompt_.callback(call<&ChatWindow::layout>, this);
  resizable(this);
  size_range(px(280), px(220));
  apply_theme();
  layout();
  if (settings_.target.empty())
    enter(State::kNoModel);
  else
    load();
  prompt_.take_focus();
}

void ChatWindow::apply_theme() {
  use_theme(look_.dark);
  color(theme().ground);
  transcript_.apply_theme();
  prompt_.apply_theme();
  prompt_.textsize(text_size_);
  redraw();
}

void ChatWindow::resize(int x, int y, int w, int h) {
  Fl_Double_Window::resize(x, y, w, h);
  layout();
}

// From the top: buttons, conversation, figures, input.
void ChatWindow::layout() {
  const int margin = px(10), gap = px(8), row = px(32), pad = px(8);
  int x = margin;
  for (FlatButton* b : {&open_, &anew_, &mode_}) {
    b->resize(x, margin, b->wanted_width(), row);
    x += b->w() + gap;
  }
  tint_.resize(w() - margin - row, margin, row, row);

  const int send_width = std::max(act_.wanted_width(), px(72));
  const int prompt_width = w() - 2 * margin - gap - send_width - 2 * pad;
  if (prompt_.w() != prompt_width)
    prompt_.resize(prompt_.x(), prompt_.y(), prompt_width, prompt_.h());
  fl_font(prompt_.textfont(), prompt_.textsize());
  const int most = std::max(1, std::min(kMostLines, h() / 4 / fl_height()));
  const int prompt_height = std::min(prompt_.lines(), most) * fl_height() + px(4);
  const int prompt_y = h() - margin - pad / 2 - prompt_height;
  prompt_.resize(margin + pad, prompt_y, prompt_width, prompt_height);
  const int act_height = std::min(prompt_height + pad, row + px(4));
  act_.resize(w() - margin - send_width, h() - margin - act_height, send_width, act_height);

  const int status_height = px(26), status_y = prompt_y - pad / 2 - status_height;
  status_.resize(margin + px(4), status_y, w() - 2 * margin - px(8), status_height);
  const int top = margin + row + gap;
  bottom_ = std::max(status_y, top + px(30));
  transcript_.resize(margin + pad, top + pad / 2, w() - 2 * margin - pad - px(2),
                     bottom_ - top - pad);
  transcript_.widest(chat_ ? kWidestChat * text_size_ / 15 : 0);
  redraw();
}

void ChatWindow::draw() {
  if (damage() & ~FL_DAMAGE_CHILD) {
    const Theme& t = theme();
    fl_color(t.ground);
    fl_rectf(0, 0, w(), h());
    const int pad = px(8);
    const auto frame = [&](const Fl_Widget& inner, int right, int bottom, Fl_Color fill) {
      const int top = inner.y() - pad / 2;
      draw_panel(inner.x() - pad, top, inner.w() + pad + right, bottom - top, px(8), fill, t.line);
    };
    frame(transcript_, px(2), bottom_, t.surface);
    frame(prompt_, pad, prompt_.y() + prompt_.h() + pad / 2, t.raised);
    fl_font(FL_HELVETICA, px(13));
    fl_color(t.soft);
    const int left = mode_.x() + mode_.w() + px(12), width = tint_.x() - px(10) - left;
    if (width > px(60)) {
      fl_push_clip(left, mode_.y(), width, mode_.h());
      fl_draw(model_name().c_str(), left, mode_.y(), width, mode_.h(),
              FL_ALIGN_RIGHT | FL_ALIGN_INSIDE, nullptr, 0);
      fl_pop_clip();
    }
    for (int i = 0; i < children(); ++i) draw_child(*child(i));
    return;
  }
  for (int i = 0; i < children(); ++i) update_child(*child(i));
}

int ChatWindow::handle(int event) {
  if (event == FL_SHORTCUT || event == FL_KEYBOARD) {
    const int key = Fl::event_key();
    if (key == FL_Escape) {
      stop();
      return 1;  // never closes the window
    }
    if (Fl::event_command()) {
      if (key == 'n') return start_anew(), 1;
      if (key == 'o') return ask_for_model(), 1;
      if (key == 'd') return toggle_theme(), 1;
      if (key == 'q') return hide(), 1;
      if (key == '+' || key == '=' || key == FL_KP + '+') return zoom(1), 1;
      if (key == '-' || key == FL_KP + '-') return zoom(-1), 1;
    }
  }
  return Fl_Double_Window::handle(event);
}

std::string ChatWindow::model_name() const {
  const std::string& path = settings_.target;
  return path.substr(path.find_last_of("/\\") + 1);
}

// ---- what the user does ----

void ChatWindow::ask_for_model() {
  std::string target = settings_.target, drafter = settings_.drafter;
  if (!choose_model(*this, &target, &drafter)) return;
  settings_.target = target;
  settings_.drafter = drafter;
  worker_.stop();
  load();
}

void ChatWindow::load() {
  transcript_.clear_text();
  began_ = false;
  enter(State::kLoading);
  status_.progress(0);
  job_ = worker_.load(settings_);
}

void ChatWindow::send() {
  const std::string typed = prompt_.text();
  if (state_ != State::kReady || typed.empty()) return;
  prompt_.clear();
  sent_ = typed;
  if (chat_) {
    transcript_.append(began_ ? "\n\nYou\n" : "You\n", Transcript::kSpeaker);
    transcript_.append(typed, Transcript::kUser);
    transcript_.append("\n\nModel\n", Transcript::kSpeaker);
  } else {
    transcript_.append(typed, Transcript::kUser);
  }
  transcript_.flush();
  began_ = true;
  enter(State::kAnswering);
  job_ = worker_.send(typed, chat_);
}

void ChatWindow::stop() {
  if (state_ == State::kLoading || state_ == State::kAnswering) worker_.stop();
}

void ChatWindow::start_anew() {
  if (state_ != State::kReady && state_ != State::kAnswering) return;
  worker_.stop();
  worker_.start_anew();
  job_ = 0;
  transcript_.clear_text();
  began_ = false;
  enter(State::kReady);
}

void ChatWindow::toggle_chat() {
  look_.chat = !chat_;
  chat_ = !chat_;
  start_anew();
  enter(state_);
}

void ChatWindow::toggle_theme() {
  look_.dark = !look_.dark;
  apply_theme();
}

void ChatWindow::zoom(int step) {
  text_size_ = std::clamp(text_size_ + step * px(1), px(9), px(40));
  transcript_.set_text_size(text_size_);
  prompt_.textsize(text_size_);
  layout();
}

// ---- what the worker tells ----

void ChatWindow::post(Event event) {
  bool first;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    first = events_.empty();
    events_.push_back(std::move(event));
  }
  if (first) Fl::awake([](void* self) { static_cast<ChatWindow*>(self)->expect_events(); }, this);
}

// As often as a screen shows them, and with time for everything else between: a model may be faster
// than its text is laid out.
void ChatWindow::expect_events() {
  const double since = std::chrono::duration<double>(Clock::now() - taken_).count();
  const double pause = std::max(1.0 / 60, 2 * taking_);
  Fl::add_timeout(
      std::max(0.0, pause - since),
      [](void* self) { static_cast<ChatWindow*>(self)->take_events(); }, this);
}

void ChatWindow::take_events() {
  const Clock::time_point begin = Clock::now();
  std::vector<Event> events;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    events.swap(events_);
  }
  for (const Event& e : events) receive(e);
  transcript_.flush();
  Fl::flush();
  taken_ = Clock::now();
  taking_ = std::chrono::duration<double>(taken_ - begin).count();
}

void ChatWindow::receive(const Event& e) {
  if (e.job != job_) return;  // an answer that was left behind by New
  switch (e.kind) {
    case Event::kLoading:
      status_.progress(e.fraction);
      break;
    case Event::kLoaded:
      chat_ = look_.chat >= 0 ? look_.chat != 0 : e.info.has_chat && !e.info.completes;
      enter(State::kReady);
      status_.say({e.info.has_drafter ? "with a drafter" : "no drafter",
                   text("%d threads", e.info.threads), e.info.backend});
      break;
    case Event::kNotLoaded:
      enter(State::kNoModel);
      if (!e.text.empty())
        transcript_.append("The model was not opened: " + e.text + ".\n", Transcript::kError);
      status_.say({"no model is open"}, !e.text.empty());
      break;
    case Event::kPrompt:
      status_.progress(e.fraction);
      break;
    case Event::kPieces:
      for (const Piece& p : e.pieces)
        transcript_.append(p.text, static_cast<Transcript::Style>(Transcript::kTarget +
                                                                  static_cast<int>(p.origin)));
      figures(e.stats, false);
      break;
    case Event::kDone:
      enter(State::kReady);
      figures(e.stats, true);
      keep_transcript();
      break;
    case Event::kFailed:
      transcript_.append("\n" + e.text + ".\n", Transcript::kError);
      if (prompt_.text().empty()) prompt_.text(sent_);  // to be shortened, or sent again
      enter(State::kReady);
      status_.say({"no answer"}, true);
      keep_transcript();
      break;
  }
}

void ChatWindow::figures(const gemtp_stats& s, bool done) {
  status_.progress(-1);
  std::vector<std::string> parts;
  if (done && s.finish == GEMTP_FINISH_CANCELLED) parts.push_back("stopped");
  if (done && s.finish == GEMTP_FINISH_CONTEXT) parts.push_back("context full: begin anew");
  if (s.tokens_per_second > 0) parts.push_back(text("%.1f tokens/s", s.tokens_per_second));
  if (s.drafted > 0)
    parts.push_back(text("%.0f%% of %lld drafts accepted",
                         100.0 * static_cast<double>(s.accepted) / static_cast<double>(s.drafted),
                         static_cast<long long>(s.drafted)));
  parts.push_back(text("%lld tokens", static_cast<long long>(s.tokens)));
  status_.say(parts);
}

void ChatWindow::enter(State state) {
  state_ = state;
  const bool ready = state == State::kReady, busy = state == State::kAnswering;
  act_.label(state == State::kLoading ? "Cancel" : busy ? "Stop" : "Send");
  state == State::kNoModel ? act_.deactivate() : act_.activate();
  ready || busy ? anew_.activate() : anew_.deactivate();
  ready || busy ? mode_.activate() : mode_.deactivate();
  mode_.label(chat_ ? "Mode: chat" : "Mode: text");
  transcript_.set_code(!chat_);
  prompt_.textfont(chat_ ? FL_HELVETICA : FL_COURIER);
  prompt_.hint(state == State::kNoModel ? "Open a model first (Ctrl+O)"
               : chat_                  ? "Write a message…"
               : began_                 ? "Go on…"
                                        : "Begin a text that the model goes on with…");
  if (state != State::kLoading) status_.progress(-1);
  if (state == State::kLoading) status_.say({"Opening " + model_name() + "…"});
  if (state == State::kReady) status_.say({});
  copy_label((model_name().empty() ? "gemtp" : model_name() + " – gemtp").c_str());
  layout();
}

// As a whole or not at all, under a name until then that nobody's file has.
void ChatWindow::keep_transcript() {
  if (look_.transcript.empty()) return;
  std::random_device random;
  const std::string all = transcript_.plain_text(),
                    part = look_.transcript + ".tmp-" + std::to_string(random());
  std::FILE* file = std::fopen(part.c_str(), "wbx");
  bool written = file && std::fwrite(all.data(), 1, all.size(), file) == all.size();
  if (file) written &= std::fclose(file) == 0;
  if (written && std::rename(part.c_str(), look_.transcript.c_str()) == 0) return;
  if (file) std::remove(part.c_str());
  status_.say({"cannot write " + look_.transcript}, true);
}
