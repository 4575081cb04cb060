// Asks which files to open.
#pragma once

#include <FL/Fl_Window.H>

#include <string>

/// False if the user did not want to. Over the middle of its parent. The paths come in as they were
/// and go out as chosen.
bool choose_model(const Fl_Window& parent, std::string* target, std::string* drafter);
