#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <vm_platform/iso.hpp>

#include "iso/testing/test_image.hpp"

namespace vm_platform::iso {
namespace {

using namespace testing;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string read_text(const Iso9660& iso, const IsoEntry& file) {
  auto bytes = iso.read_all(file);
  EXPECT_TRUE(bytes) << bytes.error().message();
  return bytes ? std::string(reinterpret_cast<const char*>(bytes->data()), bytes->size()) : "";
}
std::string read_path(const Iso9660& iso, std::string_view path) {
  auto file = iso.find(path);
  EXPECT_TRUE(file) << file.error().message();
  return file ? read_text(iso, *file) : "";
}
std::vector<std::string> names(const Iso9660& iso, std::string_view path = "/") {
  std::vector<std::string> found;
  auto directory = iso.open_directory(iso.find(path).value()).value();
  IsoEntry entry;
  while (directory.next(entry).value()) found.push_back(entry.name);
  return found;
}

/// A root with one file and one directory that holds one file.
TestImage simple_image(std::uint32_t block_size = 2048) {
  TestImage image(block_size);
  const auto hello = image.add_file("hello, disc");
  const auto inner = image.add_file("inner");
  const auto sub = image.add_directory({{"INNER.TXT;1", inner, 5}});
  const auto sub_size = image.directory_size();
  const auto root = image.add_directory({{"HELLO.TXT;1", hello, 11}, {"SUB", sub, sub_size, 2}});
  image.add_primary(root, image.directory_size());
  return image;
}

TEST(IsoReaderTest, ReadsAPlainImage) {
  TestImage image = simple_image();
  image.add_terminator();
  auto iso = SimpleIso9660::open_memory(image.bytes()).value();
  EXPECT_EQ(iso.volume().volume_id, "TEST");
  EXPECT_EQ(iso.volume().names, IsoNameSpace::Plain);
  EXPECT_EQ(iso.volume().created.nanoseconds, 990'000'000u);
  EXPECT_FALSE(iso.volume().expires.present);
  EXPECT_THAT(names(iso), ElementsAre("HELLO.TXT", "SUB"));
  EXPECT_EQ(read_path(iso, "/HELLO.TXT"), "hello, disc");
  EXPECT_EQ(read_path(iso, "sub/inner.txt"), "inner") << "plain names have no case";
  EXPECT_EQ(iso.find("SUB/../SUB/./INNER.TXT").value().modified.seconds, 1715941815);
}

TEST(IsoReaderTest, OtherBlockSizes) {
  for (const std::uint32_t block_size : {512u, 1024u, 2048u}) {
    TestImage image = simple_image(block_size);
    auto iso = SimpleIso9660::open_memory(image.bytes()).value();
    EXPECT_EQ(iso.volume().block_size, block_size);
    EXPECT_EQ(read_path(iso, "/SUB/INNER.TXT"), "inner");
  }
}

TEST(IsoReaderTest, PartialReads) {
  TestImage image = simple_image();
  auto iso = SimpleIso9660::open_memory(image.bytes()).value();
  const IsoEntry file = iso.find("HELLO.TXT").value();
  std::array<std::byte, 64> buffer{};
  EXPECT_EQ(iso.read(file, 7, buffer).value(), 4u);
  EXPECT_EQ(std::memcmp(buffer.data(), "disc", 4), 0);
  EXPECT_EQ(iso.read(file, 11, buffer).value(), 0u);
  EXPECT_EQ(iso.read(file, UINT64_MAX, buffer).value(), 0u);
  EXPECT_EQ(iso.view(file).value().size(), 11u);
  EXPECT_EQ(iso.view(file).value().data(), image.bytes().data() + file.extents()[0].offset) << "no copy";
}

TEST(IsoReaderTest, LookupErrorsNameWhatIsMissing) {
  TestImage image = simple_image();
  auto iso = SimpleIso9660::open_memory(image.bytes()).value();
  EXPECT_THAT(iso.find("/SUB/NOPE").error().message(), HasSubstr("no 'NOPE' in the image's 'SUB'"));
  EXPECT_THAT(iso.find("/HELLO.TXT/X").error().message(), HasSubstr("not a directory"));
  EXPECT_FALSE(iso.find("/HELLO.TXT/").has_value());
  EXPECT_TRUE(iso.find("/../..").value().is_directory());
  EXPECT_EQ(iso.open_directory(iso.find("HELLO.TXT").value()).error().code(), ErrorCode::InvalidArgument);
  EXPECT_EQ(iso.read_all(iso.root()).error().code(), ErrorCode::InvalidArgument);
}

TEST(IsoReaderTest, MultiExtentFilesAreOne) {
  TestImage image;
  const std::string part(4096, 'a');
  const auto first = image.add_file(part);
  image.add_file("gap");
  const auto second = image.add_file("the end");
  const auto root = image.add_directory({{"BIG.;1", first, 4096, 0x80}, {"BIG.;1", second, 7}, {"C.;1", second, 7}});
  image.add_primary(root, image.directory_size());
  auto iso = SimpleIso9660::open_memory(image.bytes()).value();
  EXPECT_THAT(names(iso), ElementsAre("BIG", "C"));
  const IsoEntry file = iso.find("BIG").value();
  EXPECT_EQ(file.size, 4103u);
  EXPECT_EQ(file.extents().size(), 2u);
  EXPECT_EQ(read_text(iso, file), part + "the end");
  EXPECT_EQ(iso.view(file).error().code(), ErrorCode::Unsupported);
}

TEST(IsoReaderTest, AMissingSectionIsAnErrorAndTheRestIsListed) {
  TestImage image;
  const auto block = image.add_file("x");
  const auto root = image.add_directory({{"A.;1", block, 1, 0x80}, {"B.;1", block, 1}});
  image.add_primary(root, image.directory_size());
  auto iso = SimpleIso9660::open_memory(image.bytes()).value();
  auto directory = iso.open_directory(iso.root()).value();
  IsoEntry entry;
  EXPECT_THAT(directory.next(entry).error().message(), HasSubstr("last section of multi-extent file 'A'"));
  EXPECT_TRUE(directory.next(entry).value());
  EXPECT_EQ(entry.name, "B");
  EXPECT_FALSE(directory.next(entry).value());
}

TEST(IsoReaderTest, InterleavedFilesAreRefusedByName) {
  TestImage image;
  const auto block = image.add_file("x");
  const auto root = image.add_directory({{"FILM.DAT;1", block, 1, 0, "", 0, 2, 3}});
  image.add_primary(root, image.directory_size());
  auto iso = SimpleIso9660::open_memory(image.bytes()).value();
  const VmError error = iso.read_all(iso.find("FILM.DAT").value()).error();
  EXPECT_EQ(error.code(), ErrorCode::Unsupported);
  EXPECT_THAT(error.message(), HasSubstr("'FILM.DAT': is recorded in interleaved mode"));
}

TEST(IsoReaderTest, ExtendedAttributeRecordsComeBeforeTheData) {
  TestImage image;
  std::string attributes(2048, '\0');
  attributes.replace(0, 4, both16(7));
  attributes.replace(4, 4, both16(8));
  attributes.replace(10, 16, "2001020304050600");
  const auto block = image.add_file(attributes + "content");
  const auto root = image.add_directory({{"X.;1", block, 7, 0, "", 1}, {"Y.;1", block, 7}});
  image.add_primary(root, image.directory_size());
  auto iso = SimpleIso9660::open_memory(image.bytes()).value();
  const IsoEntry file = iso.find("X").value();
  EXPECT_EQ(read_text(iso, file), "content");
  const IsoExtendedAttributes read = iso.extended_attributes(file).value();
  EXPECT_EQ(read.owner, 7);
  EXPECT_EQ(read.group, 8);
  EXPECT_EQ(read.created.seconds, 981173106);
  EXPECT_EQ(iso.extended_attributes(iso.find("Y").value()).error().code(), ErrorCode::NotFound);
}

TEST(IsoReaderTest, AssociatedFilesAreNotListed) {
  TestImage image;
  const auto fork = image.add_file("resource fork"), data = image.add_file("data");
  const auto root = image.add_directory({{"DOC.;1", fork, 13, 4}, {"DOC.;1", data, 4}, {"SECRET.;1", data, 4, 1}});
  image.add_primary(root, image.directory_size());
  auto iso = SimpleIso9660::open_memory(image.bytes()).value();
  EXPECT_THAT(names(iso), ElementsAre("DOC", "SECRET"));
  EXPECT_EQ(read_path(iso, "DOC"), "data");
  EXPECT_TRUE(iso.find("SECRET").value().hidden);
}

TEST(IsoReaderTest, JolietPastTheBmpAndForcedNames) {
  TestImage image = simple_image();
  const auto block = image.add_file("disc");
  const auto root = image.add_directory({{utf16be(u"\U0001F4BF größe.txt"), block, 4}});
  image.add_joliet(root, image.directory_size());
  image.add_terminator();
  auto iso = SimpleIso9660::open_memory(image.bytes()).value();
  EXPECT_EQ(iso.volume().names, IsoNameSpace::Joliet);
  EXPECT_EQ(iso.volume().joliet_level, 3);
  EXPECT_EQ(read_path(iso,
                      "/\xF0\x9F\x92\xBF gr\xC3\xB6\xC3\x9F"
                      "e.txt"),
            "disc");
  auto plain = SimpleIso9660::open_memory(image.bytes(), {.names = IsoNameSpace::Plain, .session = {}}).value();
  EXPECT_EQ(read_path(plain, "HELLO.TXT"), "hello, disc");
  const auto none = SimpleIso9660::open_memory(image.bytes(), {.names = IsoNameSpace::RockRidge, .session = {}});
  EXPECT_THAT(none.error().message(), HasSubstr("it has: plain, joliet"));
}

TEST(IsoReaderTest, Version2NamesAreLong) {
  TestImage image = simple_image();
  const auto block = image.add_file("x");
  const std::string name(200, 'n');
  const auto root = image.add_directory({{name, block, 1}});
  image.add_enhanced(root, image.directory_size());
  auto iso = SimpleIso9660::open_memory(image.bytes()).value();
  EXPECT_EQ(iso.volume().names, IsoNameSpace::Enhanced);
  EXPECT_THAT(names(iso), ElementsAre(name));
}

TEST(IsoReaderTest, RawSectors) {
  const TestImage image = simple_image();
  for (const std::uint8_t mode : {std::uint8_t{1}, std::uint8_t{2}}) {
    const std::vector<char> raw = image.as_raw_sectors(mode);
    auto iso = SimpleIso9660::open_memory(std::as_bytes(std::span(raw))).value();
    EXPECT_EQ(iso.volume().sector_format, IsoSectorFormat::Raw2352);
    EXPECT_EQ(read_path(iso, "SUB/INNER.TXT"), "inner");
    EXPECT_EQ(iso.view(iso.find("HELLO.TXT").value()).error().code(), ErrorCode::Unsupported);
  }
}

TEST(IsoReaderTest, ForeignFilesAreNamed) {
  const auto reason = [](std::string bytes) {
    bytes.resize(std::max<std::size_t>(bytes.size(), 64 * 1024), '\0');
    return SimpleIso9660::open_memory(std::as_bytes(std::span(bytes))).error().message();
  };
  EXPECT_THAT(reason("\x1F\x8B"), HasSubstr("gzip"));
  EXPECT_THAT(reason("CISO"), HasSubstr("CISO"));
  EXPECT_THAT(reason(""), HasSubstr("no volume descriptor"));
  std::string nero(65536, '\0');
  EXPECT_THAT(reason(nero + "NER5" + std::string(8, '\0')), HasSubstr("Nero"));
  std::string udf(65536, '\0');
  udf.replace(32769, 5, "BEA01");
  udf.replace(34817, 5, "NSR02");
  EXPECT_THAT(reason(udf), HasSubstr("UDF image without an ISO 9660 side"));
  std::string subchannel(2448 * 40, '\0');
  for (std::size_t i = 0; i < 40; ++i) subchannel.replace(i * 2448 + 1, 10, std::string(10, '\xFF'));
  EXPECT_THAT(reason(subchannel), HasSubstr("2448"));
  EXPECT_EQ(SimpleIso9660::open_memory({}).error().code(), ErrorCode::Corrupt);
  EXPECT_EQ(SimpleIso9660::open("/nonexistent.iso").error().code(), ErrorCode::NotFound);
}

TEST(IsoReaderTest, WalkGivesEveryPathOnce) {
  TestImage image = simple_image();
  auto iso = SimpleIso9660::open_memory(image.bytes()).value();
  IsoWalk walk(iso, iso.root());
  IsoEntry entry;
  std::vector<std::string> paths;
  while (walk.next(entry).value()) paths.emplace_back(walk.path());
  EXPECT_THAT(paths, ElementsAre("HELLO.TXT", "SUB", "SUB/INNER.TXT"));
}

TEST(IsoReaderTest, BootCatalogue) {
  TestImage image = simple_image();
  std::string catalog(2048, '\0');
  std::string validation(32, '\0');
  validation[0] = 1;
  validation.replace(4, 4, "vmp!");
  validation.replace(30, 2, "\x55\xAA");
  std::uint32_t sum = 0;
  for (std::size_t i = 0; i < 32; i += 2) {
    sum += static_cast<unsigned char>(validation[i]) |
           static_cast<std::uint32_t>(static_cast<unsigned char>(validation[i + 1]) << 8);
  }
  validation.replace(28, 2, le16(0x10000 - (sum & 0xFFFF)));
  std::string entry(32, '\0');
  entry.replace(0, 1, "\x88");
  entry.replace(6, 2, le16(4));
  entry.replace(8, 4, le32(99));
  std::string header(32, '\0');
  header.replace(0, 2, "\x91\xEF");
  header.replace(2, 2, le16(1));
  header.replace(4, 3, "efi");
  std::string second = entry;
  second[1] = 2;
  catalog = validation + entry + header + second;
  const auto block = image.add_file(catalog);
  image.add_boot_record(block);
  auto iso = SimpleIso9660::open_memory(image.bytes()).value();
  const IsoBootCatalog read = iso.boot_catalog().value();
  EXPECT_TRUE(read.checksum_ok);
  EXPECT_EQ(read.id, "vmp!");
  ASSERT_EQ(read.images.size(), 2u);
  EXPECT_TRUE(read.images[0].bootable);
  EXPECT_EQ(read.images[0].offset, 99u * 2048);
  EXPECT_EQ(read.images[1].platform, 0xEF);
  EXPECT_EQ(read.images[1].section_id, "efi");
  EXPECT_EQ(read.images[1].emulation, IsoBootImage::Emulation::Floppy1440);
}

}  // namespace
}  // namespace vm_platform::iso
