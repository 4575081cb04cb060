// The text of a conversation, coloured by where it came from.
#pragma once

#include <FL/Fl_Text_Buffer.H>
#include <FL/Fl_Text_Display.H>

#include <string>

class Transcript : public Fl_Text_Display {
 public:
  // Letters of the style buffer, in the order of the table that apply_theme() makes.
  enum Style : char {
    kTarget = 'A',
    kDrafter,
    kLookup,
    kGrammar,
    kThought,
    kUser,
    kSpeaker,  // who says what follows
    kNote,
    kError
  };

  Transcript();
  ~Transcript() override;

  void append(const std::string& text, Style style);
  /// Shows what was appended: lines are counted anew, which takes its time in a long text.
  void flush();
  void clear_text();
  std::string plain_text();
  /// Code wants letters of one width.
  void set_code(bool code);
  void set_text_size(int pixels);
  /// Lines are no longer, in the middle of what is wider; 0: as wide as there is room.
  void widest(int pixels);
  void resize(int x, int y, int w, int h) override;
  void apply_theme();

 private:
  bool at_end() const;

  Fl_Text_Buffer text_, styles_;
  std::string more_, more_styles_;  // not shown yet
  Style_Table_Entry table_[9];
  bool code_ = false;
  int size_, widest_ = 0, spare_ = 0;
};
