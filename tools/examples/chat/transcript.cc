#include "transcript.h"

#include <FL/Fl_Scrollbar.H>
#include <FL/fl_draw.H>

#include <algorithm>
#include <cstdlib>

#include "theme.h"

namespace {

// Without arrows and bevels.
class SlimScrollbar : public Fl_Scrollbar {
 public:
  SlimScrollbar() : Fl_Scrollbar(0, 0, 1, 1) {}

 protected:
  void draw() override {
    const Theme& t = theme();
    fl_color(t.surface);
    fl_rectf(x(), y(), w(), h());
    const double range = maximum() - minimum();
    if (slider_size() >= 1 || range == 0) return;
    const int length = std::max(px(24), static_cast<int>(slider_size() * h()));
    const int at = y() + static_cast<int>((value() - minimum()) / range * (h() - length));
    const Fl_Color color = fl_color_average(t.soft, t.surface, 0.5f);
    draw_panel(x() + px(3), at, w() - px(5), length, (w() - px(5)) / 2, color, color);
  }
};

}  // namespace

Transcript::Transcript() : Fl_Text_Display(0, 0, 1, 1), size_(px(15)) {
  // Fl_Text_Display makes its own; its callback is the same for every scrollbar.
  auto* bar = new SlimScrollbar;
  bar->type(FL_VERTICAL);
  bar->callback(reinterpret_cast<Fl_Callback*>(v_scrollbar_cb), this);
  Fl_Group::insert(*bar, mVScrollBar);
  delete mVScrollBar;
  mVScrollBar = bar;
  box(FL_FLAT_BOX);
  scrollbar_width(px(11));
  scrollbar_align(FL_ALIGN_RIGHT);
  buffer(text_);
  wrap_mode(WRAP_AT_BOUNDS, 0);
  hide_cursor();
  apply_theme();
}

Transcript::~Transcript() { buffer(nullptr); }

void Transcript::apply_theme() {
  const Theme& t = theme();
  const Fl_Font font = code_ ? FL_COURIER : FL_HELVETICA;
  const int small = size_ - px(2);
  const Style_Table_Entry table[] = {
      {t.ink, font, size_, 0},
      {t.drafter, font, size_, 0},
      {t.lookup, font, size_, 0},
      {t.grammar, font, size_, 0},
      {t.soft, FL_HELVETICA_ITALIC, size_, 0},
      {t.ink, font | FL_BOLD, size_, 0},
      {t.accent, FL_HELVETICA_BOLD, small, 0},
      {t.soft, FL_HELVETICA, size_, 0},
      {t.danger, FL_HELVETICA, size_, 0},
  };
  std::copy(std::begin(table), std::end(table), table_);
  color(t.surface);
  textcolor(t.ink);
  textfont(font);
  textsize(size_);
  selection_color(fl_color_average(t.accent, t.surface, 0.35f));
  highlight_data(&styles_, table_, 9, kTarget, nullptr, nullptr);
  redraw();
}

void Transcript::set_code(bool code) {
  code_ = code;
  apply_theme();
}

void Transcript::set_text_size(int pixels) {
  size_ = pixels;
  apply_theme();
  resize(x(), y(), w(), h());  // lines wrap anew
}

void Transcript::widest(int pixels) {
  if (widest_ == pixels) return;
  widest_ = pixels;
  if (spare_ > 0 && widest_ > 0) wrap_mode(WRAP_AT_PIXEL, widest_);
  resize(x(), y(), w(), h());
}

void Transcript::resize(int x, int y, int w, int h) {
  const int spare = widest_ ? std::max(0, (w - px(14) - widest_) / 2) : 0;
  if ((spare > 0) != (spare_ > 0)) {
    spare_ = spare;  // wrap_mode() resizes
    wrap_mode(spare > 0 ? WRAP_AT_PIXEL : WRAP_AT_BOUNDS, spare > 0 ? widest_ : 0);
  }
  spare_ = spare;
  // Whole lines: FLTK takes one that is cut off for visible.
  if (mMaxsize > 0 && h > mMaxsize) h -= (h - 2) % mMaxsize;
  Fl_Text_Display::resize(x, y, w, h);
  text_area.x += spare;
  text_area.w -= spare;
}

bool Transcript::at_end() const { return mTopLineNum + mNVisibleLines >= mNBufferLines; }

void Transcript::append(const std::string& text, Style style) {
  more_ += text;
  more_styles_.append(text.size(), style);
}

// Follows the text unless the reader has scrolled back.
void Transcript::flush() {
  if (more_.empty()) return;
  const bool follow = at_end();
  styles_.append(more_styles_.c_str());
  text_.append(more_.c_str());
  more_.clear();
  more_styles_.clear();
  insert_position(text_.length());
  if (follow) show_insert_position();
}

void Transcript::clear_text() {
  more_.clear();
  more_styles_.clear();
  text_.text("");
  styles_.text("");
}

std::string Transcript::plain_text() {
  flush();
  char* all = text_.text();
  std::string out = all ? all : "";
  std::free(all);
  return out;
}
