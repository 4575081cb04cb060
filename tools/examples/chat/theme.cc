#include "theme.h"

#include <FL/Fl.H>
#include <FL/fl_draw.H>
#include <FL/x.H>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <string>

namespace {

constexpr Fl_Color rgb(unsigned hex) { return static_cast<Fl_Color>(hex << 8); }

const Theme kLight{false,         rgb(0xf6f3ec), rgb(0xfffdf8), rgb(0xffffff), rgb(0x20212f),
                   rgb(0x62626f), rgb(0xded8ca), rgb(0x474bc9), rgb(0xffffff), rgb(0xb3261e),
                   rgb(0x5a5fe0), rgb(0x0f8a73), rgb(0xb86e00)};
const Theme kDark{true,          rgb(0x14151d), rgb(0x1b1d28), rgb(0x232634), rgb(0xe9e7f0),
                  rgb(0xa3a3b5), rgb(0x333748), rgb(0xa2a9ff), rgb(0x14151d), rgb(0xff8f85),
                  rgb(0x8d95ff), rgb(0x4fd0b4), rgb(0xf0b050)};

const Theme* current = &kLight;
double scale = 1;

void set(void (*to)(uchar, uchar, uchar), Fl_Color color) {
  uchar r, g, b;
  Fl::get_color(color, r, g, b);
  to(r, g, b);
}

bool contains_dark(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text.find("dark") != std::string::npos;
}

// GTK's settings, which many desktops write for all programs.
bool says_dark(const std::string& path) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("gtk-application-prefer-dark-theme", 0) == 0 &&
        (line.find('1') != std::string::npos || line.find("true") != std::string::npos))
      return true;
    if (line.rfind("gtk-theme-name", 0) == 0 && contains_dark(line)) return true;
  }
  return false;
}

}  // namespace

const Theme& theme() { return *current; }

void use_theme(bool dark) {
  current = dark ? &kDark : &kLight;
  set(Fl::background, current->ground);
  set(Fl::background2, current->raised);
  set(Fl::foreground, current->ink);
  Fl::set_color(FL_SELECTION_COLOR, current->accent);
  Fl::scheme("gtk+");
}

bool desktop_is_dark() {
  if (const char* name = std::getenv("GTK_THEME")) return contains_dark(name);
  const char* config = std::getenv("XDG_CONFIG_HOME");
  const char* home = std::getenv("HOME");
  const std::string folder = config ? config : std::string(home ? home : "") + "/.config";
  return says_dark(folder + "/gtk-4.0/settings.ini") || says_dark(folder + "/gtk-3.0/settings.ini");
}

void set_scale(double s) {
  scale = std::clamp(s, 0.5, 4.0);
  FL_NORMAL_SIZE = px(15);
}

// FLTK 1.3 scales nothing by itself under X; there, desktops say their scale as Xft.dpi.
double desktop_scale() {
#if defined(FLTK_USE_X11) || (!defined(_WIN32) && !defined(__APPLE__))
  fl_open_display();
  if (const char* dpi = XGetDefault(fl_display, "Xft", "dpi"))
    if (const double value = std::atof(dpi); value > 0) return value / 96;
  if (const char* factor = std::getenv("GDK_SCALE"))
    if (const double value = std::atof(factor); value > 0) return value;
#endif
  return 1;
}

int px(double length) { return static_cast<int>(std::lround(length * scale)); }

void draw_panel(int x, int y, int w, int h, int radius, Fl_Color fill, Fl_Color line) {
  const int d = 2 * radius;
  // Twice: the line's colour, and within it the panel.
  for (int inset = 0; inset < 2; ++inset) {
    fl_color(inset ? fill : line);
    const int X = x + inset, Y = y + inset, W = w - 2 * inset, H = h - 2 * inset;
    const int D = d - 2 * inset, R = D / 2;
    fl_pie(X, Y, D, D, 90, 180);
    fl_pie(X + W - D, Y, D, D, 0, 90);
    fl_pie(X, Y + H - D, D, D, 180, 270);
    fl_pie(X + W - D, Y + H - D, D, D, 270, 360);
    fl_rectf(X + R, Y, W - 2 * R, H);
    fl_rectf(X, Y + R, W, H - 2 * R);
  }
}

FlatButton::FlatButton(const char* label, const char* hint, bool main)
    : Fl_Button(0, 0, 1, 1, label), main_(main) {
  labelsize(px(14));
  if (hint) tooltip(hint);
  visible_focus(0);
}

int FlatButton::wanted_width() const {
  fl_font(FL_HELVETICA, labelsize());
  int w = 0, h = 0;
  fl_measure(label(), w, h, 0);
  return w + px(28);
}

int FlatButton::handle(int event) {
  if (event == FL_ENTER || event == FL_LEAVE) {
    below_mouse_ = event == FL_ENTER;
    redraw();
  }
  return Fl_Button::handle(event);
}

void FlatButton::draw() {
  const Theme& t = theme();
  const bool on = active_r();
  Fl_Color fill = main_ ? t.accent : t.raised;
  if (!on)
    fill = fl_color_average(fill, t.ground, 0.35f);
  else if (value())
    fill = fl_color_average(fill, t.ink, 0.75f);
  else if (below_mouse_)
    fill = fl_color_average(fill, t.ink, 0.9f);
  fl_color(t.ground);
  fl_rectf(x(), y(), w(), h());
  draw_panel(x(), y(), w(), h(), px(7), fill, main_ ? fill : t.line);
  fl_font(FL_HELVETICA, labelsize());
  const Fl_Color ink = main_ ? t.on_accent : t.ink;
  fl_color(on ? ink : fl_color_average(ink, fill, 0.5f));
  fl_draw(label(), x(), y(), w(), h(), FL_ALIGN_CENTER, nullptr, 0);
}
