#include <memory>
#include <utility>

#include "apps/vmp/commands/iso/common.hpp"

namespace vm_platform::vmp::iso {
namespace {

class Lines final : public IsoIssueSink {
 public:
  explicit Lines(Output& out) : out_(out) {}
  void issue(const IsoIssue& issue) override {
    out_.put(issue.severity == IsoIssue::Severity::Error ? "error    byte " : "warning  byte ");
    out_.number(issue.offset, 12);
    out_.put("  ");
    out_.name(issue.where);
    out_.put(": ");
    out_.name(issue.what);
    out_.put("\n");
  }

 private:
  Output& out_;
};

/// The elements of a JSON array.
class Objects final : public IsoIssueSink {
 public:
  explicit Objects(Output& out) : out_(out) {}
  void issue(const IsoIssue& issue) override {
    out_.put(std::exchange(separator_, ","));
    JsonObject object(out_);
    object.text("severity", issue.severity == IsoIssue::Severity::Error ? "error" : "warning");
    object.number("offset", issue.offset);
    object.text("where", issue.where);
    object.text("what", issue.what);
  }

 private:
  Output& out_;
  const char* separator_ = "";
};

int status_of(const IsoVerifyReport& counted) { return counted.errors != 0 ? kFailed : kDone; }

int run_json(const ImageOptions& options, const SimpleIso9660& image, Output& out) {
  IsoVerifyReport counted;
  {
    JsonObject object(out);
    object.text("image", options.image);
    object.member("issues").put('[');
    Objects objects(out);
    auto done = iso_verify(image, objects);
    if (!done) return report(done.error());
    counted = *done;
    out.put(']');
    object.number("errors", counted.errors);
    object.number("warnings", counted.warnings);
    object.number("directories", counted.directories);
    object.number("files", counted.files);
    object.number("bytes", counted.bytes);
  }
  out.put('\n');
  return out.finish(status_of(counted));
}

int run(const ImageOptions& options) {
  auto image = open_image(options);
  if (!image) return report(image.error());
  Output out;
  if (options.json) return run_json(options, *image, out);
  Lines lines(out);
  auto counted = iso_verify(*image, lines);
  if (!counted) return report(counted.error());
  put_count(out, counted->directories, " directories, ");
  put_count(out, counted->files, " files, ");
  put_count(out, counted->bytes, " bytes read: ");
  put_count(out, counted->errors, " errors, ");
  put_count(out, counted->warnings, " warnings\n");
  return out.finish(status_of(*counted));
}

}  // namespace

void add_verify(CLI::App& iso, Action& action) {
  auto* command = iso.add_subcommand("verify", "Walk everything in an image and report each inconsistency");
  auto options = std::make_shared<ImageOptions>();
  add_image_options(*command, *options);
  command->footer(
      "Checks every name space, every file's content, path tables, boot catalogue, overlaps. Exit status 0: no errors\n"
      "(there may be warnings), 1: errors, 2: not an image.\nExamples:\n  vmp iso verify debian.iso\n  vmp iso verify "
      "--json debian.iso");
  command->callback([options, &action] { action = [options] { return run(*options); }; });
}

}  // namespace vm_platform::vmp::iso
