#include <memory>

#include "apps/vmp/commands/iso/common.hpp"

namespace vm_platform::vmp::iso {
namespace {

class Printer final : public IsoIssueSink {
 public:
  Printer(Output& out, bool json) : out_(out), json_(json) {}
  void issue(const IsoIssue& issue) override {
    const bool error = issue.severity == IsoIssue::Severity::Error;
    if (json_) {
      out_.put(first_ ? "{\"severity\":" : ",{\"severity\":");
      first_ = false;
      out_.json(error ? "error" : "warning");
      out_.put(",\"offset\":");
      out_.number(issue.offset);
      out_.put(",\"where\":");
      out_.json(issue.where);
      out_.put(",\"what\":");
      out_.json(issue.what);
      out_.put('}');
      return;
    }
    out_.put(error ? "error    byte " : "warning  byte ");
    out_.number(issue.offset, 12);
    out_.put("  ");
    out_.name(issue.where);
    out_.put(": ");
    out_.name(issue.what);
    out_.put("\n");
  }

 private:
  Output& out_;
  bool json_, first_ = true;
};

int run(const ImageOptions& options) {
  auto image = open_image(options);
  if (!image) return report(image.error());
  Output out;
  if (options.json) {
    out.put("{\"image\":");
    out.json(options.image);
    out.put(",\"issues\":[");
  }
  Printer printer(out, options.json);
  auto counted = iso_verify(*image, printer);
  if (!counted) return report(counted.error());
  if (options.json) {
    out.put("],\"errors\":");
    out.number(counted->errors);
    out.put(",\"warnings\":");
    out.number(counted->warnings);
    out.put(",\"directories\":");
    out.number(counted->directories);
    out.put(",\"files\":");
    out.number(counted->files);
    out.put(",\"bytes\":");
    out.number(counted->bytes);
    out.put("}\n");
  } else {
    out.number(counted->directories);
    out.put(" directories, ");
    out.number(counted->files);
    out.put(" files, ");
    out.number(counted->bytes);
    out.put(" bytes read: ");
    out.number(counted->errors);
    out.put(" errors, ");
    out.number(counted->warnings);
    out.put(" warnings\n");
  }
  out.flush();
  return counted->errors != 0 || out.failed() ? kFailed : kDone;
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
