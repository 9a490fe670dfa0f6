// Images that lie: none may crash, hang, or take more memory than is stated.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <random>
#include <vm_platform/iso_boot.hpp>
#include <vm_platform/iso_extract.hpp>

#include "iso/testing/test_image.hpp"

namespace vm_platform::iso {
namespace {

using namespace testing;
using ::testing::HasSubstr;

/// Entries and errors of a whole walk; ends by itself or the test's time does.
struct Walked {
  std::size_t entries = 0, errors = 0;
  std::string first_error;
};
Walked walk_all(const Iso9660& iso) {
  Walked walked;
  IsoWalk walk(iso, iso.root());
  IsoEntry entry;
  for (;;) {
    auto more = walk.next(entry);
    if (!more) {
      if (walked.errors++ == 0) walked.first_error = more.error().message();
      continue;
    }
    if (!*more) return walked;
    ++walked.entries;
  }
}
struct CountingSink final : IsoIssueSink {
  std::vector<std::string> all;
  void issue(const IsoIssue& issue) override { all.push_back(issue.where + ": " + issue.what); }
};

TEST(HostileTest, DirectoryCycles) {
  TestImage image;
  const auto at = static_cast<std::uint32_t>(image.bytes().size() / 2048);
  const auto root = image.add_directory({{"ME", at, 2048, 2}, {"AGAIN", at, 2048, 2}});
  image.add_primary(root, 2048);
  auto iso = SimpleIso9660::open_memory(image.bytes()).value();
  const Walked walked = walk_all(iso);
  EXPECT_EQ(walked.entries, 2u);
  EXPECT_EQ(walked.errors, 2u);
  EXPECT_THAT(walked.first_error, HasSubstr("twice, or inside itself"));
  EXPECT_TRUE(iso.find("ME/ME/AGAIN/ME").has_value()) << "a path is finite, whatever the tree is";
  std::string deep;
  for (int i = 0; i < 10'000; ++i) deep += "/ME";
  EXPECT_EQ(iso.find(deep).error().code(), ErrorCode::Corrupt);
}

TEST(HostileTest, OverlappingDirectoriesEndTheWalk) {
  // Every directory is the rest of the same area: without a budget the walk would be quadratic in its size.
  TestImage image;
  std::vector<TestRecord> records;
  const auto at = static_cast<std::uint32_t>(image.bytes().size() / 2048);
  for (std::uint32_t i = 0; i < 400; ++i) records.push_back({"D" + std::to_string(i), at + i % 10, 20480, 2});
  const auto root = image.add_directory(records);
  image.add_primary(root, image.directory_size());
  auto iso = SimpleIso9660::open_memory(image.bytes()).value();
  EXPECT_LT(walk_all(iso).entries, 100'000u);
}

TEST(HostileTest, ExtentsAndSizesOutOfRange) {
  TestImage image;
  const auto root = image.add_directory(
      {{"A.;1", 0xFFFFFFFF, 0xFFFFFFFF}, {"B", 0xFFFFFFFF, 0xFFFFFFFF, 2}, {"C.;1", 20, 0xFFFFFFFF}});
  image.add_primary(root, image.directory_size());
  auto iso = SimpleIso9660::open_memory(image.bytes()).value();
  EXPECT_EQ(walk_all(iso).errors, 1u);
  std::array<std::byte, 64> buffer{};
  EXPECT_EQ(iso.read(iso.find("A").value(), 0, buffer).error().code(), ErrorCode::Corrupt);
  EXPECT_EQ(iso.view(iso.find("C").value()).error().code(), ErrorCode::Corrupt);
  EXPECT_EQ(iso.read_all(iso.find("C").value(), UINT64_MAX).error().code(), ErrorCode::Corrupt);
  EXPECT_EQ(iso.read(iso.find("C").value(), 0, buffer).value(), 64u) << "what is there can be read";
}

TEST(HostileTest, RecordsThatCrossTheirSector) {
  TestImage image;
  const auto root = image.allocate(4096);
  const std::string record = record_bytes({"LONGNAME.TXT;1", 20, 5});
  image.put(std::uint64_t{root} * 2048, record_bytes({std::string(1, '\0'), root, 4096, 2}));
  std::uint64_t at = std::uint64_t{root} * 2048 + 34;
  for (int i = 0; i < 41; ++i, at += record.size()) image.put(at, record);
  image.put(std::uint64_t{root} * 2048 + 2046, "\x30\x00\x00");
  image.put(at, std::string(1, '\xC0'));  // a record that goes past 2048
  image.put(std::uint64_t{root} * 2048 + 2048, record_bytes({"NEXT.;1", 20, 5}));
  image.add_primary(root, 4096);
  auto iso = SimpleIso9660::open_memory(image.bytes()).value();
  const Walked walked = walk_all(iso);
  EXPECT_GE(walked.errors, 1u);
  EXPECT_THAT(walked.first_error, HasSubstr("crosses the end of its sector"));
  EXPECT_TRUE(iso.find("NEXT").has_value());
}

TEST(HostileTest, BothEndianPairsThatDisagreeAreReported) {
  TestImage image;
  const auto block = image.add_file("content");
  const auto root = image.add_directory({{"A.;1", block, 7}});
  image.raw()[std::size_t{root} * 2048 + 68 + 6] = 0x55;  // big-endian half of A's extent
  image.add_primary(root, image.directory_size());
  auto iso = SimpleIso9660::open_memory(image.bytes()).value();
  EXPECT_EQ(iso.read_all(iso.find("A").value()).value().size(), 7u);
  CountingSink sink;
  const IsoVerifyReport report = iso_verify(iso, sink).value();
  EXPECT_EQ(report.errors, 1u);
  EXPECT_THAT(sink.all.at(0), HasSubstr("the two byte orders disagree"));
}

TEST(HostileTest, AMillionContinuationAreas) {
  TestImage image;
  const std::uint32_t areas = 1'000'000;  // each 28 bytes, each pointing to the next
  const auto first = image.allocate(areas * 32);
  for (std::uint32_t i = 0; i < areas; ++i) {
    const std::uint64_t next = std::uint64_t{first} * 2048 + (i + 1) * 32;
    image.put(std::uint64_t{first} * 2048 + i * 32,
              ce(static_cast<std::uint32_t>(next / 2048), static_cast<std::uint32_t>(next % 2048), 28));
  }
  std::vector<TestRecord> records;
  for (int i = 0; i < 1000; ++i) records.push_back({"F" + std::to_string(i), 0, 0, 0, ce(first, 0, 28)});
  const auto root = image.add_directory(records, sp() + er());
  image.add_primary(root, image.directory_size());
  auto iso = SimpleIso9660::open_memory(image.bytes()).value();
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(walk_all(iso).errors, 1000u);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
}

TEST(HostileTest, AMillionNamesInOneDirectory) {
  TestImage image;
  constexpr std::uint32_t kNames = 1'000'000, kInSector = 2048 / 42;
  constexpr std::uint32_t kSize = (kNames + kInSector - 1) / kInSector * 2048;
  const auto root = image.allocate(kSize);
  std::string record = record_bytes({"N0000000", 20, 1});
  ASSERT_EQ(record.size(), 42u);
  for (std::uint32_t i = 0; i < kNames; ++i) {
    for (std::uint32_t digit = 0, left = i; digit < 7; ++digit, left /= 10) {
      record[33 + 7 - digit] = static_cast<char>('0' + left % 10);
    }
    image.put(std::uint64_t{root} * 2048 + i / kInSector * 2048 + i % kInSector * 42, record);
  }
  image.add_primary(root, kSize);
  auto iso = SimpleIso9660::open_memory(image.bytes()).value();
  EXPECT_EQ(walk_all(iso).entries, kNames);
  EXPECT_TRUE(iso.find("N0999999").has_value());
}

TEST(HostileTest, OverlappingExtentsAreReported) {
  TestImage image;
  const auto block = image.add_file(std::string(6000, 'x'));
  const auto root = image.add_directory({{"A.;1", block, 6000}, {"B.;1", block + 1, 2048}, {"SAME.;1", block, 6000}});
  image.add_primary(root, image.directory_size());
  auto iso = SimpleIso9660::open_memory(image.bytes()).value();
  CountingSink sink;
  EXPECT_EQ(iso_verify(iso, sink).value().warnings, 1u) << "one extent with two names is a hard link";
  EXPECT_THAT(sink.all, ::testing::Contains(HasSubstr("overlaps the one at byte")));
  // A file over a directory is worse.
  TestImage bad;
  const auto at = static_cast<std::uint32_t>(bad.bytes().size() / 2048);
  const auto top = bad.add_directory({{"OVER.;1", at, 100}});
  bad.add_primary(top, bad.directory_size());
  auto damaged = SimpleIso9660::open_memory(bad.bytes()).value();
  EXPECT_EQ(iso_verify(damaged, sink).value().errors, 1u);
}

TEST(HostileTest, ZisofsThatLies) {
  TestImage image;
  const std::string magic("\x37\xE4\x53\x96\xC9\xDB\xD6\x07", 8);
  const auto header = [&](std::uint32_t size) { return magic + le32(size) + "\x04\x0F" + std::string(2, '\0'); };
  const auto bad_pointers = image.add_file(header(100) + le32(24) + le32(0xFFFFFFF0));
  const auto garbage = image.add_file(header(100) + le32(24) + le32(34) + "0123456789");
  const auto huge = image.add_file(header(0xFFFFFFFF) + le32(24) + le32(24));
  const auto root = image.add_directory({{"A.;1", bad_pointers, 40, 0, nm("pointers") + zf(100)},
                                         {"B.;1", garbage, 34, 0, nm("garbage") + zf(100)},
                                         {"C.;1", huge, 24, 0, nm("huge") + zf(0xFFFFFFFF)},
                                         {"D.;1", garbage, 34, 0, nm("size") + zf(99)}},
                                        sp() + er());
  image.add_primary(root, image.directory_size());
  auto iso = SimpleIso9660::open_memory(image.bytes()).value();
  for (const char* name : {"pointers", "garbage", "huge", "size"}) {
    const auto bytes = iso.read_all(iso.find(name).value(), UINT64_MAX);
    EXPECT_FALSE(bytes.has_value()) << name;
  }
}

TEST(HostileTest, BootCatalogueWithoutEnd) {
  TestImage image;
  std::string catalog(32, '\0');
  catalog[0] = 1;
  catalog.replace(30, 2, "\x55\xAA");
  catalog += "\x88" + std::string(31, '\0');
  for (int i = 0; i < 3000; ++i) catalog += "\x90" + std::string(31, '\0');
  const auto block = image.add_file(catalog);
  const auto root = image.add_directory({});
  image.add_primary(root, 2048);
  image.add_boot_record(block);
  auto iso = SimpleIso9660::open_memory(image.bytes()).value();
  EXPECT_THAT(iso.boot_catalog().error().message(), HasSubstr("has no end"));
}

TEST(HostileTest, NamesThatAreNoFileNamesAreNotExtracted) {
  TestImage image;
  const auto block = image.add_file("evil");
  const auto root = image.add_directory({{"A.;1", block, 4, 0, nm("../escape")},
                                         {"B.;1", block, 4, 0, nm("..")},
                                         {"C", block, 2048, 2, nm("..")},
                                         {"D.;1", block, 4, 0, nm(std::string_view("nul\0byte", 8))},
                                         {"E.;1", block, 4, 0, nm("good")}},
                                        sp() + er());
  image.add_primary(root, image.directory_size());
  auto iso = SimpleIso9660::open_memory(image.bytes()).value();
  const std::string target = ::testing::TempDir() + "vmp-iso-names-" + std::to_string(std::random_device{}());
  const IsoExtractReport report = iso_extract(iso, target).value();
  EXPECT_EQ(report.failures, 4u);
  EXPECT_EQ(report.files, 1u);
  std::filesystem::remove_all(target);
}

/// Every byte of the structures of a rich image, damaged at random: whatever comes back, it comes back.
TEST(HostileTest, RandomDamageIsSurvived) {
  TestImage image;
  const auto block = image.add_file("content");
  const auto area = image.add_file(nm("continued"));
  const auto sub = image.add_directory({{"F.;1", block, 7, 0, nm("f") + px(0100644)}});
  const auto root =
      image.add_directory({{"A.;1", block, 7, 0, px(0100644) + nm("a", 1) + ce(area, 0, 14)},
                           {"L.;1", 0, 0, 0, px(0120777) + nm("l") + sl(sl_component("", 8) + sl_component("a"))},
                           {"S", sub, 2048, 2, px(0040755) + nm("s")},
                           {"CL.;1", 0, 0, 0, nm("cl") + field("CL", both32(sub))},
                           {"M.;1", block, 2048, 0x80},
                           {"M.;1", block, 7}},
                          sp() + er() + px(0040755));
  image.add_primary(root, image.directory_size());
  image.add_boot_record(block);
  image.add_joliet(root, image.directory_size());
  const std::vector<char> good = image.raw();
  std::mt19937 random(1);
  CountingSink sink;
  for (int round = 0; round < 800; ++round) {
    std::vector<char> bad = good;
    for (int i = 0; i < 4; ++i) {
      const std::size_t where =
          random() % 2 == 0 ? 16 * 2048 + random() % 6144 : std::size_t{area} * 2048 + random() % 6144;
      if (where < bad.size()) bad[where] = static_cast<char>(random());
    }
    auto iso = SimpleIso9660::open_memory(std::as_bytes(std::span(bad)));
    if (!iso) continue;
    (void)walk_all(*iso);
    (void)iso->boot_catalog();
    (void)find_boot_entries(*iso);
    if (round % 10 == 0) (void)iso_verify(*iso, sink);
  }
}

}  // namespace
}  // namespace vm_platform::iso
