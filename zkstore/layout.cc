#include "zkstore/layout.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "zkstore/text.h"

namespace postkeeper {
namespace {

// "<hex uid>.<number>", as cursors and parts are named.
struct NumberedName {
  Uid uid;
  std::uint64_t number;
};

std::optional<NumberedName> ParseNumbered(std::string_view name) {
  const std::size_t dot = name.find('.');
  if (dot == std::string_view::npos) return std::nullopt;
  std::optional<Uid> uid = Uid::FromHex(name.substr(0, dot));
  std::uint64_t number = 0;
  if (!uid || !absl::SimpleAtoi(AbslView(name.substr(dot + 1)), &number)) return std::nullopt;
  return NumberedName{*uid, number};
}

}  // namespace

Layout::Layout(std::string root) : root_(std::move(root)) {}

std::string Layout::Format() const { return Cat(root_, "/format"); }
std::string Layout::Replicas() const { return Cat(root_, "/replicas"); }
std::string Layout::Replica(const ProcessId& process) const { return Cat(Replicas(), "/", process.ToHex()); }
std::string Layout::Namespaces() const { return Cat(root_, "/names"); }
std::string Layout::Namespace(std::string_view name_space) const { return Cat(Namespaces(), "/", name_space); }
std::string Layout::Queues(std::string_view name_space) const { return Cat(Namespace(name_space), "/queues"); }
std::string Layout::Queue(std::string_view name_space, std::string_view queue) const {
  return Cat(Queues(name_space), "/", queue);
}
std::string Layout::Topics(std::string_view name_space) const { return Cat(Namespace(name_space), "/topics"); }
std::string Layout::Topic(std::string_view name_space, std::string_view topic) const {
  return Cat(Topics(name_space), "/", topic);
}
std::string Layout::Data() const { return Cat(root_, "/data"); }
std::string Layout::Trash() const { return Cat(root_, "/trash"); }
std::string Layout::Trash(const Uid& uid) const { return Cat(Trash(), "/", uid.ToHex()); }

std::string Layout::LogData(const Uid& uid) const { return Cat(Data(), "/", uid.ToHex()); }
std::string Layout::Owner(const Uid& uid) const { return Cat(LogData(uid), "/owner"); }
std::string Layout::Head(const Uid& uid) const { return Cat(LogData(uid), "/head"); }
std::string Layout::Segments(const Uid& uid) const { return Cat(LogData(uid), "/log"); }
std::string Layout::Segment(const Uid& uid, std::uint64_t segment) const { return Cat(Segments(uid), "/", segment); }
std::string Layout::BatchPrefix(const Uid& uid, std::uint64_t segment) const {
  return Cat(Segment(uid, segment), "/b-");
}
std::string Layout::Batch(const Uid& uid, Position batch) const {
  return absl::StrFormat("%s%010u", BatchPrefix(uid, batch.segment()), batch.batch());
}
std::string Layout::Producers(const Uid& uid) const { return Cat(LogData(uid), "/producers"); }
std::string Layout::Producer(const Uid& uid, const ProcessId& process, std::uint32_t generation) const {
  return Cat(Producers(uid), "/", process.ToHex(), ".", generation);
}
std::string Layout::Cursors(const Uid& uid) const { return Cat(LogData(uid), "/cursors"); }
std::string Layout::Cursor(const Uid& uid, const Uid& source, std::uint32_t generation) const {
  return Cat(Cursors(uid), "/", source.ToHex(), ".", generation);
}
std::string Layout::Parts(const Uid& uid) const { return Cat(LogData(uid), "/parts"); }
std::string Layout::Part(const Uid& uid, const Uid& source, std::uint64_t part) const {
  return Cat(Parts(uid), "/", source.ToHex(), ".", part);
}
std::string Layout::Dedups(const Uid& uid) const { return Cat(LogData(uid), "/dedup"); }
std::string Layout::Dedup(const Uid& uid, std::int64_t epoch, std::uint64_t number) const {
  return Cat(Dedups(uid), "/", epoch, ".", number);
}
std::string Layout::Kept(const Uid& uid) const { return Cat(LogData(uid), "/kept"); }

std::vector<std::string> Layout::LogDirectories(const Uid& uid) const {
  return {Segments(uid), Producers(uid), Cursors(uid), Parts(uid), Dedups(uid), Kept(uid)};
}

std::optional<std::uint64_t> Layout::ParseSegment(std::string_view name) {
  std::uint64_t segment = 0;
  if (!absl::SimpleAtoi(AbslView(name), &segment) || segment > Position::kSegmentMax) return std::nullopt;
  return segment;
}

std::optional<std::uint32_t> Layout::ParseBatch(std::string_view path) {
  constexpr std::size_t kDigits = 10;
  if (path.size() < kDigits + 2 || path.substr(path.size() - kDigits - 2, 2) != "b-") return std::nullopt;
  std::uint32_t batch = 0;
  if (!absl::SimpleAtoi(AbslView(path.substr(path.size() - kDigits)), &batch) || batch > Position::kBatchMax)
    return std::nullopt;
  return batch;
}

std::optional<Layout::CursorName> Layout::ParseCursor(std::string_view name) {
  std::optional<NumberedName> parsed = ParseNumbered(name);
  if (!parsed || parsed->number > UINT32_MAX) return std::nullopt;
  return CursorName{parsed->uid, static_cast<std::uint32_t>(parsed->number)};
}

std::optional<Layout::PartName> Layout::ParsePart(std::string_view name) {
  std::optional<NumberedName> parsed = ParseNumbered(name);
  if (!parsed) return std::nullopt;
  return PartName{parsed->uid, parsed->number};
}

std::optional<Layout::DedupName> Layout::ParseDedup(std::string_view name) {
  const std::size_t dot = name.find('.');
  DedupName parsed{};
  if (dot == std::string_view::npos || !absl::SimpleAtoi(AbslView(name.substr(0, dot)), &parsed.epoch) ||
      !absl::SimpleAtoi(AbslView(name.substr(dot + 1)), &parsed.number)) {
    return std::nullopt;
  }
  return parsed;
}

std::string ParentPath(std::string_view path) {
  const std::size_t slash = path.rfind('/');
  return slash == 0 || slash == std::string_view::npos ? "/" : std::string(path.substr(0, slash));
}

}  // namespace postkeeper
