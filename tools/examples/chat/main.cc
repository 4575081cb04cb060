// A chat window on gemtp's C ABI, with FLTK: one program of a megabyte that needs nothing of the
// desktop but X11, Windows or macOS, and starts at once.
#include <FL/Fl.H>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "window.h"

namespace {

const char kUsage[] =
    "usage: chat [TARGET.gguf [DRAFTER.gguf]] [options]\n"
    "  --complete           go on with texts instead of answering messages\n"
    "  --chat               answer messages, whatever the model was made for\n"
    "  --system TEXT        how the model is to behave\n"
    "  --context N          tokens that a conversation can hold (4096)\n"
    "  --max-tokens N       of one answer (what the context holds)\n"
    "  --temperature T      0 is greedy (0); also --top-k, --top-p, --seed\n"
    "  --threads N          as many as this machine profits from\n"
    "  --transcript FILE    keep the conversation there\n"
    "  --size WxH           of the window (900x640)\n"
    "  --scale S            of everything in it (the desktop's)\n"
    "  --dark, --light      (the desktop's)\n";

struct Arguments {
  Settings settings;
  ChatWindow::Look look{900, 640, desktop_is_dark(), -1, ""};
  double scale = 0;
};

[[noreturn]] void refuse(const std::string& why) {
  std::fprintf(stderr, "chat: %s\n%s", why.c_str(), kUsage);
  std::exit(2);
}

double number(const char* option, const char* given, double low, double high) {
  char* end = nullptr;
  const double value = std::strtod(given, &end);
  if (end == given || *end || !(value >= low && value <= high))
    refuse(std::string(option) + " " + given + " is not a number that it can be");
  return value;
}

Arguments parse(int argc, char** argv) {
  Arguments a;
  int paths = 0;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    const auto value = [&] {
      if (i + 1 == argc) refuse(name + " needs a value");
      return argv[++i];
    };
    const auto numeric = [&](double low, double high) {
      return number(name.c_str(), value(), low, high);
    };
    if (name == "--complete") {
      a.look.chat = 0;
    } else if (name == "--chat") {
      a.look.chat = 1;
    } else if (name == "--system") {
      a.settings.system = value();
    } else if (name == "--context") {
      a.settings.context = static_cast<int64_t>(numeric(2, 1 << 24));
    } else if (name == "--max-tokens") {
      a.settings.max_tokens = static_cast<int64_t>(numeric(1, 1 << 24));
    } else if (name == "--temperature") {
      a.settings.temperature = static_cast<float>(numeric(0, 100));
    } else if (name == "--top-k") {
      a.settings.top_k = static_cast<int32_t>(numeric(0, 1 << 24));
    } else if (name == "--top-p") {
      a.settings.top_p = static_cast<float>(numeric(0, 1));
    } else if (name == "--seed") {
      a.settings.seed = static_cast<uint64_t>(numeric(0, 1e15));
    } else if (name == "--threads") {
      a.settings.threads = static_cast<int32_t>(numeric(0, 1024));
    } else if (name == "--transcript") {
      a.look.transcript = value();
    } else if (name == "--scale") {
      a.scale = numeric(0.5, 4);
    } else if (name == "--size") {
      if (std::sscanf(value(), "%dx%d", &a.look.width, &a.look.height) != 2 || a.look.width < 100 ||
          a.look.height < 100 || a.look.width > 20000 || a.look.height > 20000)
        refuse("--size is like 900x640");
    } else if (name == "--dark" || name == "--light") {
      a.look.dark = name == "--dark";
    } else if (name == "--help" || name == "-h") {
      std::fputs(kUsage, stdout);
      std::exit(0);
    } else if (name[0] == '-' || ++paths > 2) {
      refuse(name + " is not an option");
    } else {
      (paths == 1 ? a.settings.target : a.settings.drafter) = name;
    }
  }
  return a;
}

}  // namespace

int main(int argc, char** argv) {
  Arguments a = parse(argc, argv);
  Fl::lock();  // other threads will call Fl::awake()
  const bool given = a.scale > 0;
  set_scale(given ? a.scale : desktop_scale());
  a.look.width = std::min(px(a.look.width), Fl::w());
  a.look.height = std::min(px(a.look.height), Fl::h());
  ChatWindow window(a.settings, a.look);
  window.show();
  return Fl::run();
}
