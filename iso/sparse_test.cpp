// Sparse files (Rock Ridge SF). No tool writes them, so the images are this file's own.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <random>
#include <vm_platform/iso_extract.hpp>

#include "iso/testing/test_image.hpp"

namespace vm_platform::iso {
namespace {

using namespace testing;
using ::testing::HasSubstr;

constexpr std::uint32_t kIndex = 0x40000000, kEmpty = 0x80000000;

/// The stored form of a sparse file while it is being made.
struct Sparse {
  /// The first 2048 bytes are not used, the root of the index is behind them.
  std::string bytes = std::string(4096, '\0');

  Sparse() { clear(1); }
  void clear(std::uint32_t block) {
    for (std::uint32_t i = 0; i < 256; ++i) set(block, i, kEmpty);
  }
  void set(std::uint32_t block, std::uint32_t entry, std::uint32_t value) {
    bytes.replace(block * 2048 + entry * 8, 8, both32(value));
  }
  std::uint32_t add_index() {
    const auto block = static_cast<std::uint32_t>((bytes.size() + 2047) / 2048);
    bytes.resize((block + 1) * std::size_t{2048});
    clear(block);
    return block;
  }
  /// Returns the place in units of 256 bytes.
  std::uint32_t add_data(const std::string& data) {
    bytes.resize((bytes.size() + 255) / 256 * 256);
    const auto unit = static_cast<std::uint32_t>(bytes.size() / 256);
    bytes += data;
    return unit;
  }
};

std::string sf(std::uint64_t size, std::uint8_t depth) {
  return field("SF", both32(static_cast<std::uint32_t>(size >> 32)) + both32(static_cast<std::uint32_t>(size)) +
                         static_cast<char>(depth));
}

SimpleIso9660 with_file(TestImage& image, const Sparse& sparse, const std::string& sf_field,
                        const IsoOpenOptions& options = {}) {
  const auto block = image.add_file(sparse.bytes);
  const auto root = image.add_directory(
      {{"S.;1", block, static_cast<std::uint32_t>(sparse.bytes.size()), 0, px(0100644) + nm("s") + sf_field}},
      sp() + er() + px(0040755));
  image.add_primary(root, image.directory_size());
  return SimpleIso9660::open_memory(image.bytes(), options).value();
}
std::string read_text(const Iso9660& iso) {
  auto bytes = iso.read_all(iso.find("s").value());
  EXPECT_TRUE(bytes) << bytes.error().message();
  return bytes ? std::string(reinterpret_cast<const char*>(bytes->data()), bytes->size()) : "";
}
std::string read_error(const Iso9660& iso) {
  std::vector<std::byte> buffer(65536);
  auto got = iso.read(iso.find("s").value(), 0, buffer);
  return got ? "" : got.error().message();
}
struct Issues final : IsoIssueSink {
  std::string text;
  void issue(const IsoIssue& issue) override { text += issue.where + ": " + issue.what + "\n"; }
};
std::string verify(const SimpleIso9660& iso) {
  Issues issues;
  EXPECT_TRUE(iso_verify(iso, issues));
  return issues.text;
}

std::string pattern(std::size_t size, int seed) {
  std::string text(size, '\0');
  for (std::size_t i = 0; i < size; ++i) text[i] = static_cast<char>(static_cast<int>(i % 251) * seed + 1);
  return text;
}

TEST(SparseTest, OneLevel) {
  Sparse sparse;
  const std::string first = pattern(512, 3), last = pattern(100, 5);
  const std::uint32_t at = sparse.add_data(first);
  sparse.set(1, 3, at);
  sparse.set(1, 4, at + 1);
  sparse.set(1, 200, sparse.add_data(last));
  const std::uint64_t size = 200 * 256 + 100;
  std::string expected(size, '\0');
  expected.replace(3 * 256, 512, first);
  expected.replace(200 * 256, 100, last);

  TestImage image;
  auto iso = with_file(image, sparse, sf(size, 1));
  const IsoEntry file = iso.find("s").value();
  EXPECT_EQ(file.size, size);
  EXPECT_EQ(file.sparse_depth, 1);
  EXPECT_EQ(file.stored_size, sparse.bytes.size());
  EXPECT_TRUE(read_text(iso) == expected);
  EXPECT_EQ(verify(iso), "");
  EXPECT_EQ(iso.view(file).error().code(), ErrorCode::Unsupported);
  // Any range.
  std::mt19937 random(7);
  for (int i = 0; i < 300; ++i) {
    const std::uint64_t offset = random() % size;
    std::vector<std::byte> buffer(random() % 3000 + 1, std::byte{0xEE});
    const std::size_t got = iso.read(file, offset, buffer).value();
    ASSERT_EQ(got, std::min<std::size_t>(buffer.size(), size - offset));
    ASSERT_EQ(std::string_view(reinterpret_cast<const char*>(buffer.data()), got), expected.substr(offset, got));
  }
}

TEST(SparseTest, DeepIndexAndDataOfAWholeRegion) {
  Sparse sparse;
  const std::string region = pattern(65536, 7), leaf = pattern(256, 11);
  const std::uint32_t middle = sparse.add_index();
  const std::uint32_t low = sparse.add_index();
  sparse.set(1, 2, kIndex | middle);               // of 16 MiB
  sparse.set(middle, 1, sparse.add_data(region));  // 64 KiB at once
  sparse.set(middle, 255, kIndex | low);
  sparse.set(low, 255, sparse.add_data(leaf));
  const std::uint64_t base = 2ull << 24, size = 3ull << 24;
  std::string expected(size, '\0');
  expected.replace(base + 65536, region.size(), region);
  expected.replace(size - 256, 256, leaf);
  TestImage image;
  auto iso = with_file(image, sparse, sf(size, 3));
  EXPECT_TRUE(read_text(iso) == expected);
  EXPECT_EQ(verify(iso), "");
  // The field as RRIP 1.10 had it: 32 bits of size, three levels.
  TestImage old_image;
  auto old = with_file(old_image, sparse, field("SF", both32(static_cast<std::uint32_t>(size))));
  EXPECT_TRUE(read_text(old) == expected);
}

TEST(SparseTest, StoredFormCanBeAskedFor) {
  Sparse sparse;
  sparse.set(1, 0, sparse.add_data("data"));
  TestImage image;
  auto iso = with_file(image, sparse, sf(4, 1), {.decompress = false, .session = {}});
  EXPECT_TRUE(read_text(iso) == sparse.bytes);
}

TEST(SparseTest, SectionsOfTheStoredFormAreOne) {
  Sparse sparse;
  const std::string data = pattern(256, 3);
  sparse.set(1, 1, sparse.add_data(data));
  TestImage image;
  const auto first = image.add_file(sparse.bytes.substr(0, 2048)), second = image.add_file(sparse.bytes.substr(2048));
  const std::string use = px(0100644) + nm("s") + sf(512, 1);
  const auto rest = static_cast<std::uint32_t>(sparse.bytes.size() - 2048);
  const auto root =
      image.add_directory({{"S.;1", first, 2048, 0x80, use}, {"S.;1", second, rest, 0, use}}, sp() + er());
  image.add_primary(root, image.directory_size());
  auto iso = SimpleIso9660::open_memory(image.bytes()).value();
  EXPECT_TRUE(read_text(iso) == std::string(256, '\0') + data);
}

TEST(SparseTest, ExtractedFilesHaveHoles) {
  namespace fs = std::filesystem;
  Sparse sparse;
  const std::uint32_t middle = sparse.add_index(), low = sparse.add_index();
  sparse.set(1, 255, kIndex | middle);
  sparse.set(middle, 0, kIndex | low);
  sparse.set(low, 0, sparse.add_data(pattern(256, 13)));
  const std::uint64_t size = (255ull << 24) + 5'000'000;
  TestImage image;
  auto iso = with_file(image, sparse, sf(size, 3));
  const fs::path target = fs::path(::testing::TempDir()) / ("vmp-iso-sparse-" + std::to_string(std::random_device{}()));
#ifdef __linux__
  const IsoExtractReport report = iso_extract(iso, target.string()).value();
  EXPECT_EQ(report.failures, 0u);
  EXPECT_EQ(fs::file_size(target / "s"), size);
  std::ifstream in(target / "s", std::ios::binary);
  std::string data(256, '\0');
  in.seekg(static_cast<std::streamoff>(255ull << 24));
  in.read(data.data(), 256);
  EXPECT_TRUE(data == pattern(256, 13));
#endif
  fs::remove_all(target);
}

TEST(SparseTest, DamagedFieldsAndIndexesAreErrors) {
  {
    TestImage image;
    auto iso = with_file(image, Sparse{}, sf(100, 8));
    EXPECT_THAT(read_error(iso), HasSubstr("SF) is damaged"));
    EXPECT_THAT(verify(iso), HasSubstr("the table depth is not 1 to 7"));
  }
  {
    TestImage image;
    auto iso = with_file(image, Sparse{}, sf(65537, 1));
    EXPECT_THAT(read_error(iso), HasSubstr("SF) is damaged"));
    EXPECT_THAT(verify(iso), HasSubstr("larger than its index"));
  }
  {
    TestImage image;
    Sparse sparse;
    sparse.set(1, 0, kIndex | 1);
    auto iso = with_file(image, sparse, sf(1000, 1));
    EXPECT_THAT(read_error(iso), HasSubstr("deeper than it says"));
  }
  {
    TestImage image;
    Sparse sparse;
    sparse.set(1, 0, 0xFFFFFF);
    auto iso = with_file(image, sparse, sf(1000, 1));
    EXPECT_THAT(read_error(iso), HasSubstr("not in the file"));
    EXPECT_THAT(verify(iso), HasSubstr("not in the file"));
  }
  {
    TestImage image;
    Sparse sparse;
    sparse.bytes.resize(3000);
    auto iso = with_file(image, sparse, sf(1000, 1));
    EXPECT_THAT(read_error(iso), HasSubstr("index block 1 is not in the file"));
  }
}

/// Every entry of the root leads to the root again: 256^7 regions, if they were all looked at.
TEST(SparseTest, AnIndexThatLeadsToItselfEnds) {
  TestImage image;
  Sparse sparse;
  for (std::uint32_t i = 0; i < 256; ++i) sparse.set(1, i, kIndex | 1);
  auto iso = with_file(image, sparse, sf(0xFFFFFFFFFFFFFFFF, 7));
  EXPECT_THAT(read_error(iso), HasSubstr("uses a block twice"));
  EXPECT_THAT(verify(iso), HasSubstr("uses a block twice"));
}

TEST(SparseTest, AnIndexThatMultipliesDataEnds) {
  TestImage image;
  Sparse sparse;
  const std::uint32_t at = sparse.add_data(pattern(256, 3));
  for (std::uint32_t i = 0; i < 256; ++i) sparse.set(1, i, at);
  auto iso = with_file(image, sparse, sf(65536, 1));
  EXPECT_THAT(read_error(iso), HasSubstr("uses data twice"));
  EXPECT_THAT(verify(iso), HasSubstr("uses data twice"));
}

TEST(SparseTest, NothingButZerosOfAnySizeIsVerifiedAtOnce) {
  TestImage image;
  auto iso = with_file(image, Sparse{}, sf(std::uint64_t{1} << 63, 7));
  EXPECT_EQ(verify(iso), "");
  std::array<std::byte, 16> buffer{};
  EXPECT_EQ(iso.read(iso.find("s").value(), std::uint64_t{1} << 62, buffer).value(), 16u);
}

}  // namespace
}  // namespace vm_platform::iso
