// Colours and sizes of the window, light and dark: those of gemtp's page, so that tokens are told
// apart by the same ones.
#pragma once

#include <FL/Fl_Button.H>
#include <FL/Fl_Widget.H>

struct Theme {
  bool dark;
  Fl_Color ground, surface, raised, ink, soft, line, accent, on_accent, danger, drafter, lookup,
      grammar;
};

const Theme& theme();
/// Also of what FLTK itself draws.
void use_theme(bool dark);
/// What the desktop's settings ask for, as far as files and variables say.
bool desktop_is_dark();

/// Pixels of the screen: of a text of usual size, and of lengths given for a screen of 96 dpi.
void set_scale(double scale);
double desktop_scale();
int px(double length);

/// A box with round corners.
void draw_panel(int x, int y, int w, int h, int radius, Fl_Color fill, Fl_Color line);

/// A flat button. A main one has the accent's colour.
class FlatButton : public Fl_Button {
 public:
  FlatButton(const char* label, const char* hint, bool main = false);
  int handle(int event) override;
  int wanted_width() const;

 protected:
  void draw() override;

 private:
  const bool main_;
  bool below_mouse_ = false;
};
