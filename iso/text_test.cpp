#include "iso/text.hpp"

#include <gtest/gtest.h>

#include "iso/testing/test_image.hpp"

namespace vm_platform::iso {
namespace {

std::string joliet(std::u16string_view name) {
  const std::string bytes = testing::utf16be(name);
  std::string out;
  append_joliet_name(out, std::as_bytes(std::span(bytes)));
  return out;
}
std::string plain(std::string_view name) {
  std::string out;
  append_plain_name(out, name);
  return out;
}
std::string as_utf8(std::string_view bytes) {
  std::string out;
  append_as_utf8(out, bytes);
  return out;
}
IsoTime short_of(std::string_view bytes) { return short_time(std::as_bytes(std::span(bytes))); }
IsoTime long_of(std::string_view bytes) { return long_time(std::as_bytes(std::span(bytes))); }

TEST(IsoTextTest, PlainNamesLoseVersionAndEmptyExtension) {
  EXPECT_EQ(plain("README.TXT;1"), "README.TXT");
  EXPECT_EQ(plain("README.;1"), "README");
  EXPECT_EQ(plain("A.B.C"), "A.B.C");
  EXPECT_EQ(plain("A;B"), "A;B");
  EXPECT_EQ(plain("."), ".");
}

TEST(IsoTextTest, JolietNamesBecomeUtf8PastTheBmp) {
  EXPECT_EQ(joliet(u"grüße.txt;1"),
            "gr\xC3\xBC\xC3\x9F"
            "e.txt");
  EXPECT_EQ(joliet(u"\U0001F4BF disc"), "\xF0\x9F\x92\xBF disc");
}

TEST(IsoTextTest, LoneSurrogatesAreReplaced) {
  const char16_t lone[] = {u'a', 0xD800, u'b', 0xDC00, 0xD800};
  EXPECT_EQ(joliet(std::u16string_view(lone, 5)),
            "a\xEF\xBF\xBD"
            "b\xEF\xBF\xBD\xEF\xBF\xBD");
}

TEST(IsoTextTest, BytesThatAreNoUtf8AreLatin1) {
  EXPECT_EQ(as_utf8("caf\xE9"), "caf\xC3\xA9");
  EXPECT_EQ(as_utf8("caf\xC3\xA9"), "caf\xC3\xA9");
  EXPECT_EQ(as_utf8("\xC0\xAF"), "\xC3\x80\xC2\xAF");              // overlong '/'
  EXPECT_EQ(as_utf8("\xED\xA0\x80"), "\xC3\xAD\xC2\xA0\xC2\x80");  // surrogate
  EXPECT_EQ(as_utf8("\xF4\x90\x80\x80").size(), 8u);               // past U+10FFFF
  EXPECT_EQ(as_utf8("\xF0\x9F\x92"), "\xC3\xB0\xC2\x9F\xC2\x92");  // cut short
}

TEST(IsoTextTest, ShortTimeIsUtcWithItsZone) {
  const IsoTime time = short_of(std::string_view("\x7C\x05\x11\x0C\x1E\x0F\x08", 7));
  EXPECT_TRUE(time.present);
  EXPECT_EQ(time.seconds, 1715941815);  // 2024-05-17 10:30:15 UTC
  EXPECT_EQ(time.zone_minutes, 120);
  EXPECT_EQ(short_of(std::string_view("\x46\x01\x01\0\0\0\0", 7)).seconds, 0);
  EXPECT_EQ(short_of(std::string_view("\0\x01\x01\0\0\0\0", 7)).seconds, -2208988800);  // 1900
}

TEST(IsoTextTest, ImpossibleTimesAreNotPresent) {
  EXPECT_FALSE(short_of(std::string_view("\0\0\0\0\0\0\0", 7)).present);
  EXPECT_FALSE(short_of(std::string_view("\x7C\x0D\x11\x0C\x1E\x0F\0", 7)).present);
  EXPECT_FALSE(short_of(std::string_view("\x7C\x0C\x11\x18\x1E\x0F\0", 7)).present);
  EXPECT_FALSE(long_of(std::string_view("0000000000000000\0", 17)).present);
  EXPECT_FALSE(long_of(std::string_view("20x4051712301599\0", 17)).present);
}

TEST(IsoTextTest, LongTimeHasHundredthsAndZone) {
  const IsoTime time = long_of(std::string_view("2024051712301599\xF8", 17));
  EXPECT_EQ(time.seconds, 1715941815 + 4 * 3600);
  EXPECT_EQ(time.nanoseconds, 990'000'000u);
  EXPECT_EQ(time.zone_minutes, -120);
}

}  // namespace
}  // namespace vm_platform::iso
