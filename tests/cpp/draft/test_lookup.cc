#include "draft/lookup.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <random>
#include <vector>

using namespace gemtp;

namespace {

Lookup lookup_of(const std::vector<int32_t>& text) {
  Lookup lookup;
  for (int32_t token : text) lookup.push(token);
  return lookup;
}

using Tokens = std::vector<int32_t>;

}  // namespace

TEST_CASE("looks up what followed the longest repetition of the end of the text") {
  // "1 2 3" was seen twice; "9 1 2 3" once, followed by 4.
  Lookup lookup = lookup_of({9, 1, 2, 3, 4, 5, 8, 1, 2, 3, 6, 7, 9, 1, 2, 3});
  CHECK(lookup.draft(3).tokens == Tokens{4, 5, 8});
  CHECK(lookup.draft(3).match == 4);
}

TEST_CASE("of equally long repetitions the latest is taken") {
  Lookup lookup = lookup_of({1, 2, 3, 4, 1, 2, 5, 6, 1, 2});
  CHECK(lookup.draft(2).tokens == Tokens{5, 6});
  CHECK(lookup.draft(2).match == 2);
}

TEST_CASE("nothing is drafted behind tokens that are new, or for no room") {
  CHECK(lookup_of({}).draft(4).tokens.empty());
  CHECK(lookup_of({1}).draft(4).tokens.empty());
  CHECK(lookup_of({1, 1}).draft(4).tokens.empty());
  CHECK(lookup_of({1, 2, 3, 4}).draft(4).tokens.empty());
  CHECK(lookup_of({1, 2, 3, 3}).draft(4).tokens.empty());  // one token repeated is no n-gram
  CHECK(lookup_of({1, 2, 3, 1, 2}).draft(0).tokens.empty());
}

TEST_CASE("a period goes on beyond the end of the text") {
  Lookup lookup = lookup_of({7, 1, 2, 3, 1, 2, 3, 1});
  CHECK(lookup.draft(7).tokens == Tokens{2, 3, 1, 2, 3, 1, 2});
  CHECK(lookup_of({5, 5, 5}).draft(4).tokens == Tokens{5, 5, 5, 5});
}

TEST_CASE("a copy is followed although its n-grams occurred again since") {
  Tokens text(60);
  for (int i = 0; i < 60; ++i) text[i] = 100 + i;
  const Tokens copied(text.begin(), text.begin() + 40);
  text.insert(text.end(), copied.begin(), copied.end());
  Lookup lookup = lookup_of(text);
  CHECK(lookup.draft(4).tokens == Tokens{140, 141, 142, 143});
  CHECK(lookup.draft(4).match == Lookup::kLongestMatch);
  lookup.push(140);
  CHECK(lookup.draft(2).tokens == Tokens{141, 142});
}

TEST_CASE("against a search of the whole text") {
  std::mt19937 random(1);
  for (int round = 0; round < 200; ++round) {
    const int letters = 2 + round % 5;
    Tokens text(3 + static_cast<int>(random() % 60));
    for (int32_t& t : text) t = static_cast<int32_t>(random() % letters);
    // The longest match that remembered n-grams can find: at least 8, 4 or 2 tokens, and the latest
    // place of those, so never longer than the longest of all.
    const auto n = static_cast<int>(text.size());
    int longest = 0;
    for (int end = 1; end < n; ++end) {
      int length = 0;
      while (length < std::min(end, Lookup::kLongestMatch) &&
             text[end - 1 - length] == text[n - 1 - length])
        ++length;
      longest = std::max(longest, length);
    }
    Lookup lookup = lookup_of(text);
    const Lookup::Draft& draft = lookup.draft(6);
    CHECK((longest >= 2) == (draft.match >= 2));
    CHECK(draft.match <= longest);
    for (int size : {8, 4, 2}) {
      if (longest >= size) {
        CHECK(draft.match >= size);
        break;
      }
    }
    if (draft.match == 0) continue;
    // It is a place of the text: what precedes agrees, what follows is what was drafted.
    bool found = false;
    for (int end = 1; end < n && !found; ++end) {
      Tokens extended(text.begin(), text.begin() + end);
      bool same = true;
      for (int k = 0; k < draft.match; ++k) same &= end > k && text[end - 1 - k] == text[n - 1 - k];
      for (int i = 0; i < 6 && same; ++i) {
        const int32_t follows = end + i < n ? text[end + i] : draft.tokens[end + i - n];
        same = follows == draft.tokens[i];
      }
      found = same;
    }
    CHECK(found);
  }
}
