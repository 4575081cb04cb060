#include "model_dialog.h"

#include <FL/Fl.H>
#include <FL/Fl_Box.H>
#include <FL/Fl_Double_Window.H>
#include <FL/Fl_Input.H>
#include <FL/Fl_Native_File_Chooser.H>

#include <algorithm>

#include "theme.h"

namespace {

// A path, and a button that looks for it.
class PathRow {
 public:
  PathRow(const char* label, const char* title)
      : title_(title), label_(0, 0, 1, 1, label), input_(0, 0, 1, 1), browse_("Browse…", nullptr) {
    label_.align(FL_ALIGN_LEFT | FL_ALIGN_INSIDE);
    label_.labelsize(px(14));
    label_.labelcolor(theme().ink);
    input_.box(FL_FLAT_BOX);
    input_.color(theme().raised);
    input_.textcolor(theme().ink);
    input_.cursor_color(theme().ink);
    input_.textsize(px(14));
    browse_.callback([](Fl_Widget*, void* self) { static_cast<PathRow*>(self)->browse(); }, this);
  }

  void place(int x, int y, int w) {
    const int h = px(30), button = browse_.wanted_width();
    label_.resize(x, y, w, px(22));
    input_.resize(x, y + px(22), w - button - px(8), h);
    browse_.resize(x + w - button, y + px(22), button, h);
  }
  std::string path() const { return input_.value(); }
  void path(const std::string& path) { input_.value(path.c_str()); }

 private:
  void browse() {
    Fl_Native_File_Chooser chooser(Fl_Native_File_Chooser::BROWSE_FILE);
    chooser.title(title_);
    chooser.filter("Models\t*.gguf");
    if (const std::string now = path(); !now.empty()) chooser.preset_file(now.c_str());
    if (chooser.show() == 0) path(chooser.filename());
  }

  const char* title_;
  Fl_Box label_;
  Fl_Input input_;
  FlatButton browse_;
};

}  // namespace

bool choose_model(const Fl_Window& parent, std::string* target, std::string* drafter) {
  const int w = std::min(px(560), std::max(parent.w() - px(20), px(280))), h = px(206),
            margin = px(16);
  Fl_Double_Window window(parent.x() + (parent.w() - w) / 2, parent.y() + (parent.h() - h) / 3, w,
                          h, "Open a model");
  window.color(theme().ground);
  PathRow models("Model", "The model"), drafters("Drafter (may be empty)", "Its drafter");
  FlatButton cancel("Cancel", nullptr), open("Open", nullptr, true);
  window.end();
  models.place(margin, px(10), w - 2 * margin);
  drafters.place(margin, px(76), w - 2 * margin);
  models.path(*target);
  drafters.path(*drafter);
  const int y = h - px(34) - margin, button = std::max(cancel.wanted_width(), px(90));
  open.resize(w - margin - button, y, button, px(34));
  cancel.resize(w - margin - 2 * button - px(10), y, button, px(34));
  open.shortcut(FL_Enter);
  bool chosen = false;
  const auto end = [](Fl_Widget* from, void* chosen) {
    *static_cast<bool*>(chosen) = true;
    from->window()->hide();
  };
  open.callback(end, &chosen);
  cancel.callback([](Fl_Widget* from, void*) { from->window()->hide(); });
  window.set_modal();
  window.show();
  while (window.shown()) Fl::wait();
  if (!chosen || models.path().empty()) return false;
  *target = models.path();
  *drafter = drafters.path();
  return true;
}
