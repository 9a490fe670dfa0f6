#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vm_platform/iso.hpp>

#include "iso/testing/test_image.hpp"

namespace vm_platform::iso {
namespace {

using namespace testing;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr std::uint32_t kFile = 0100644, kDirectory = 0040755, kSymlink = 0120777, kCharacter = 0020600;

/// A Rock Ridge image whose root holds `records`.
SimpleIso9660 open_with(TestImage& image, const std::vector<TestRecord>& records, std::uint8_t skip = 0) {
  const auto root = image.add_directory(records, sp(skip) + er() + px(kDirectory, 2, 3, 4));
  image.add_primary(root, image.directory_size());
  auto iso = SimpleIso9660::open_memory(image.bytes());
  EXPECT_TRUE(iso) << iso.error().message();
  return std::move(*iso);
}

TEST(RockRidgeTest, NamesModesOwnersAndDevices) {
  TestImage image;
  const auto block = image.add_file("content");
  auto iso = open_with(image, {{"A.;1", block, 7, 0, px(kFile | 04000, 2, 1000, 1001) + nm("long ", 1) + nm("name")},
                               {"B.;1", 0, 0, 0, px(kCharacter) + nm("tty") + field("PN", both32(4) + both32(64))}});
  EXPECT_EQ(iso.volume().names, IsoNameSpace::RockRidge);
  EXPECT_EQ(iso.volume().rock_ridge_extension, "RRIP_1991A");
  EXPECT_EQ(iso.root().uid, 3u);
  const IsoEntry file = iso.find("long name").value();
  EXPECT_EQ(file.mode, 04644u);
  EXPECT_EQ(file.links, 2u);
  EXPECT_EQ(file.uid, 1000u);
  EXPECT_EQ(file.gid, 1001u);
  const IsoEntry tty = iso.find("tty").value();
  EXPECT_EQ(tty.type, IsoEntryType::CharacterDevice);
  EXPECT_EQ(tty.device_major, 4u);
  EXPECT_EQ(tty.device_minor, 64u);
  EXPECT_FALSE(iso.find("LONG NAME").has_value()) << "Rock Ridge names have case";
  EXPECT_TRUE(iso.find("LONG NAME", IsoFollow::Yes, IsoCase::Ignore).has_value());
}

TEST(RockRidgeTest, TimesShortAndLong) {
  TestImage image;
  const std::string short_stamp("\x64\x02\x03\x04\x05\x06\x00", 7);
  const std::string long_stamp("2001020304050650\x04", 17);
  auto iso = open_with(image, {{"A.;1", 0, 0, 0, nm("a") + field("TF", "\x06" + short_stamp + short_stamp)},
                               {"B.;1", 0, 0, 0, nm("b") + field("TF", "\x83" + long_stamp + long_stamp)}});
  const IsoEntry a = iso.find("a").value();
  EXPECT_EQ(a.modified.seconds, 949550706);
  EXPECT_EQ(a.accessed.seconds, 949550706);
  EXPECT_FALSE(a.created.present);
  const IsoEntry b = iso.find("b").value();
  EXPECT_EQ(b.created.seconds, 981173106 - 3600);
  EXPECT_EQ(b.modified.nanoseconds, 500'000'000u);
  EXPECT_EQ(b.modified.zone_minutes, 60);
}

TEST(RockRidgeTest, SymlinksResolveInsideTheImageOnly) {
  TestImage image;
  const auto block = image.add_file("target");
  const auto sub = image.add_directory(
      {{"L.;1", 0, 0, 0,
        px(kSymlink) + nm("up") +
            sl(sl_component("", 4) + sl_component("", 4) + sl_component("", 4) + sl_component("file"))},
       {"M.;1", 0, 0, 0,
        px(kSymlink) + nm("abs") + sl(sl_component("", 8) + sl_component("fi", 1), 1) + sl(sl_component("le"))}});
  const auto sub_size = image.directory_size();
  auto iso = open_with(image, {{"F.;1", block, 6, 0, px(kFile) + nm("file")},
                               {"D", sub, sub_size, 2, px(kDirectory) + nm("dir")},
                               {"LOOP.;1", 0, 0, 0, px(kSymlink) + nm("loop") + sl(sl_component("loop"))}});
  EXPECT_EQ(iso.find("dir/up", IsoFollow::No).value().symlink_target, "../../../file");
  EXPECT_EQ(iso.find("dir/up").value().name, "file");
  EXPECT_EQ(iso.find("dir/abs", IsoFollow::No).value().symlink_target, "/file");
  EXPECT_EQ(iso.find("dir/abs").value().size, 6u);
  EXPECT_THAT(iso.find("loop").error().message(), HasSubstr("too many levels"));
  EXPECT_EQ(iso.find("loop", IsoFollow::No).value().size, 4u);
}

TEST(RockRidgeTest, ContinuationAreasAreFollowed) {
  TestImage image;
  const std::string rest = nm(" the rest") + px(kFile, 5);
  const auto area = image.add_file(std::string(100, '\0') + rest);
  auto iso =
      open_with(image, {{"A.;1", 0, 0, 0, nm("begin,", 1) + ce(area, 100, static_cast<std::uint32_t>(rest.size()))}});
  EXPECT_EQ(iso.find("begin, the rest").value().links, 5u);
}

TEST(RockRidgeTest, ContinuationLoopsEnd) {
  TestImage image;
  const auto area = image.allocate(2048);
  image.put(std::uint64_t{area} * 2048, nm("x", 1) + ce(area, 0, 34));
  const auto block = image.add_file("y");
  auto iso = open_with(image, {{"A.;1", 0, 0, 0, ce(area, 0, 34)}, {"B.;1", block, 1, 0, nm("fine")}});
  auto directory = iso.open_directory(iso.root()).value();
  IsoEntry entry;
  EXPECT_THAT(directory.next(entry).error().message(), HasSubstr("more than 64 continuation areas"));
  EXPECT_TRUE(directory.next(entry).value());
  EXPECT_EQ(entry.name, "fine");
}

TEST(RockRidgeTest, BadContinuationsAreErrorsWithTheirOffset) {
  TestImage image;
  auto iso =
      open_with(image, {{"A.;1", 0, 0, 0, ce(0x7FFFFFFF, 0xFFFFFFFF, 100)}, {"B.;1", 0, 0, 0, ce(20, 0, 0xFFFFFFFF)}});
  auto directory = iso.open_directory(iso.root()).value();
  IsoEntry entry;
  EXPECT_THAT(directory.next(entry).error().message(), HasSubstr("byte 4402341476351"));
  EXPECT_THAT(directory.next(entry).error().message(), HasSubstr("continuation area of 4294967295 bytes"));
  EXPECT_FALSE(directory.next(entry).value());
}

TEST(RockRidgeTest, RelocatedDirectoriesAreWhereTheyBelong) {
  TestImage image;
  const auto block = image.add_file("deep");
  const auto deep = image.add_directory({{"F.;1", block, 4, 0, nm("file")}});
  const auto deep_size = image.directory_size();
  const auto moved = image.add_directory({{"DEEP", deep, deep_size, 2, nm("deep") + px(kDirectory) + field("RE", "")}});
  const auto moved_size = image.directory_size();
  auto iso = open_with(image, {{"RR_MOVED", moved, moved_size, 2, nm("rr_moved") + px(kDirectory)},
                               {"HERE.;1", 0, 0, 0, nm("here") + px(kDirectory) + field("CL", both32(deep))}});
  IsoWalk walk(iso, iso.root());
  IsoEntry entry;
  std::vector<std::string> paths;
  while (walk.next(entry).value()) paths.emplace_back(walk.path());
  EXPECT_THAT(paths, ElementsAre("here", "here/file"));
  EXPECT_TRUE(iso.find("here").value().relocated);
}

TEST(RockRidgeTest, ChildLinksToNothingAndToTheirParents) {
  TestImage image;
  const auto root = static_cast<std::uint32_t>(image.bytes().size() / 2048);
  auto iso = open_with(image, {{"A.;1", 0, 0, 0, nm("nothing") + field("CL", both32(3))},
                               {"B.;1", 0, 0, 0, nm("self") + field("CL", both32(root))}});
  IsoWalk walk(iso, iso.root());
  IsoEntry entry;
  EXPECT_THAT(walk.next(entry).error().message(), HasSubstr("no directory begins there"));
  EXPECT_TRUE(walk.next(entry).value());
  EXPECT_EQ(entry.name, "self");
  EXPECT_THAT(walk.next(entry).error().message(), HasSubstr("twice, or inside itself"));
  EXPECT_FALSE(walk.next(entry).value());
}

TEST(RockRidgeTest, SkippedBytesBeforeTheFields) {
  TestImage image;
  auto iso = open_with(image, {{"A.;1", 0, 0, 0, std::string("12345678") + nm("skipped")}}, 8);
  EXPECT_TRUE(iso.find("skipped").has_value());
}

TEST(RockRidgeTest, XaAttributesBeforeTheFields) {
  TestImage image;
  const std::string xa("\0\0\0\0\x55\x55XA\0\0\0\0\0\0", 14);
  const auto root = image.add_directory({{"A.;1", 0, 0, 0, xa + nm("behind xa")}}, xa + sp(14) + er());
  image.add_primary(root, image.directory_size());
  auto iso = SimpleIso9660::open_memory(image.bytes()).value();
  EXPECT_TRUE(iso.find("behind xa").has_value());
}

}  // namespace
}  // namespace vm_platform::iso
