#include <gtest/gtest.h>

#include <chrono>
#include <vm_platform/iso.hpp>

namespace vm_platform {
namespace {

TEST(IsoGlobTest, StarsStopAtSlashesAndDoubleStarsDoNot) {
  EXPECT_TRUE(iso_glob_match("*.txt", "a.txt"));
  EXPECT_FALSE(iso_glob_match("*.txt", "d/a.txt"));
  EXPECT_TRUE(iso_glob_match("**/*.txt", "d/e/a.txt"));
  EXPECT_TRUE(iso_glob_match("**/*.txt", "a.txt"));
  EXPECT_TRUE(iso_glob_match("d/**", "d/e/a.txt"));
  EXPECT_FALSE(iso_glob_match("d/**", "e/d/a.txt"));
  EXPECT_TRUE(iso_glob_match("a/**/b", "a/b"));
  EXPECT_TRUE(iso_glob_match("a/**/b", "a/x/y/b"));
}

TEST(IsoGlobTest, SetsQuestionMarksAndQuotes) {
  EXPECT_TRUE(iso_glob_match("file[0-9].?", "file7.c"));
  EXPECT_FALSE(iso_glob_match("file[!0-9].?", "file7.c"));
  EXPECT_TRUE(iso_glob_match("a[]]b", "a]b"));
  EXPECT_TRUE(iso_glob_match("\\*", "*"));
  EXPECT_FALSE(iso_glob_match("\\*", "x"));
  EXPECT_FALSE(iso_glob_match("a?b", "a/b"));
  EXPECT_FALSE(iso_glob_match("[abc", "a"));
  EXPECT_FALSE(iso_glob_match("", "a"));
  EXPECT_TRUE(iso_glob_match("", ""));
}

TEST(IsoGlobTest, CharactersNotBytes) {
  EXPECT_TRUE(iso_glob_match("?.txt", "\u00e9.txt"));
  EXPECT_FALSE(iso_glob_match("??.txt", "\u00e9.txt"));
  EXPECT_TRUE(iso_glob_match("[\u00e9].txt", "\u00e9.txt"));
  EXPECT_FALSE(iso_glob_match("[\u00e9].txt", "\u00e8.txt")) << "the same first byte";
  EXPECT_TRUE(iso_glob_match("[a-\u00fc]x[!\u4e00-\u9fff]", "\u00e9x\U0001F4BF"));
  EXPECT_FALSE(iso_glob_match("[!\u4e00-\u9fff]", "\u597d"));
  EXPECT_TRUE(iso_glob_match("?*[\u00e9]", "\u00e8\u00e9"));
  EXPECT_FALSE(iso_glob_match("?*[!\u00e9]", "\u00e9\u00e9")) << "half a character is none";
  EXPECT_FALSE(iso_glob_match("**[!\u00e9]", "\u00e9"));
  EXPECT_TRUE(iso_glob_match("a?[\xff]", "a\xfe\xff")) << "bytes that are no UTF-8 stand for themselves";
}

TEST(IsoGlobTest, HostilePatternsDoNotBlowUp) {
  const std::string path(400, 'a');
  std::string pattern;
  for (int i = 0; i < 100; ++i) pattern += "a**a*";
  const auto start = std::chrono::steady_clock::now();
  EXPECT_FALSE(iso_glob_match(pattern + "b", path));
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(2));
}

}  // namespace
}  // namespace vm_platform
