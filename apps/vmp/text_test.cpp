#include "apps/vmp/text.hpp"

#include <gtest/gtest.h>

namespace vm_platform::vmp {
namespace {

TEST(Text, WhatCanBeShownStaysAsItIs) {
  for (const std::string_view text : {"", "a b~", "größe", "\xC2\xA0", "€", "日本語", "\U0001F600", "\\x1b"})
    EXPECT_EQ(printable(text), text);
}

TEST(Text, ControlCharactersAreShownByTheirBytes) {
  EXPECT_EQ(printable("a\x1b[31mb\x7f"), "a\\x1b[31mb\\x7f");
  EXPECT_EQ(printable(std::string_view("\0x", 2)), "\\x00x");
  EXPECT_EQ(printable("\xC2\x80-\xC2\x9B-\xC2\x9F"), "\\xc2\\x80-\\xc2\\x9b-\\xc2\\x9f");
  EXPECT_EQ(printable("a\nb"), "a\\x0ab");
  EXPECT_EQ(printable_lines("a\nb\r\n"), "a\nb\\x0d\n");
}

TEST(Text, WhatIsNotUtf8IsShownByItsBytes) {
  struct Case {
    std::string_view bytes, shown;
  };
  for (const auto& [bytes, shown] : {
           Case{"\x9B"
                "31m",
                "\\x9b31m"},                                           // a control character in Latin-1
           Case{"\xC0\x9B", "\\xc0\\x9b"},                             // overlong
           Case{"\xE0\x82\x9B", "\\xe0\\x82\\x9b"},                    // overlong
           Case{"\xF0\x80\x82\x9B", "\\xf0\\x80\\x82\\x9b"},           // overlong
           Case{"\xED\xA0\x80", "\\xed\\xa0\\x80"},                    // a surrogate
           Case{"\xF4\x90\x80\x80", "\\xf4\\x90\\x80\\x80"},           // past U+10FFFF
           Case{"\xF5\x80\x80\x80", "\\xf5\\x80\\x80\\x80"},           // no lead byte
           Case{"\xE2\x82", "\\xe2\\x82"},                             // cut off
           Case{"\xE2\x82z\xC3\xA4\xFF", "\\xe2\\x82z\xC3\xA4\\xff"},  // among others
       })
    EXPECT_EQ(printable(bytes), shown);
}

TEST(Text, RunsAreAsLongAsTheyCanBe) {
  EXPECT_EQ(next_run("aä\x1b").length, 3U);
  EXPECT_EQ(next_run("aä\x1b").kind, TextKind::Plain);
  EXPECT_EQ(next_run("\xC2\x9B\xC2\x9B").length, 2U);
  EXPECT_EQ(next_run("\xC2\x9B\xC2\x9B").kind, TextKind::Control);
  EXPECT_EQ(next_run("\xC2").length, 1U);
  EXPECT_EQ(next_run("\xC2").kind, TextKind::NotUtf8);
}

}  // namespace
}  // namespace vm_platform::vmp
