// The one file that knows the paths of the store. docs/STORAGE.md explains the tree.
#ifndef POSTKEEPER_ZKSTORE_LAYOUT_H_
#define POSTKEEPER_ZKSTORE_LAYOUT_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "zkstore/position.h"
#include "zkstore/text_id.h"

namespace postkeeper {

// Immutable; thread-safe.
class Layout {
 public:
  // The version of this layout; a store with a higher one is refused.
  static constexpr int kFormatVersion = 1;
  // Segments are numbered from here, so that there is a position before the first message of a log.
  static constexpr std::uint64_t kFirstSegment = 1;

  // `root` is an absolute path without a trailing slash, such as /postkeeper. Its parents are made at start.
  explicit Layout(std::string root);

  const std::string& root() const { return root_; }
  std::string Format() const;
  std::string Replicas() const;
  std::string Replica(const ProcessId& process) const;
  std::string Namespaces() const;
  std::string Namespace(std::string_view name_space) const;
  std::string Queues(std::string_view name_space) const;
  std::string Queue(std::string_view name_space, std::string_view queue) const;
  std::string Topics(std::string_view name_space) const;
  std::string Topic(std::string_view name_space, std::string_view topic) const;
  std::string Data() const;
  std::string Trash() const;
  std::string Trash(const Uid& uid) const;

  // The data of one log.
  std::string LogData(const Uid& uid) const;
  std::string Owner(const Uid& uid) const;
  std::string Head(const Uid& uid) const;
  std::string Segments(const Uid& uid) const;
  std::string Segment(const Uid& uid, std::uint64_t segment) const;
  // To be created with a sequential mode; ZooKeeper appends the number.
  std::string BatchPrefix(const Uid& uid, std::uint64_t segment) const;
  std::string Batch(const Uid& uid, Position batch) const;
  std::string Producers(const Uid& uid) const;
  std::string Producer(const Uid& uid, const ProcessId& process, std::uint32_t generation) const;
  std::string Cursors(const Uid& uid) const;
  std::string Cursor(const Uid& uid, const Uid& source, std::uint32_t generation) const;
  std::string Parts(const Uid& uid) const;
  std::string Part(const Uid& uid, const Uid& source, std::uint64_t part) const;
  std::string Dedups(const Uid& uid) const;
  // `epoch`: that of the owner who made it; so no owner needs to know what others have made.
  std::string Dedup(const Uid& uid, std::int64_t epoch, std::uint64_t number) const;
  std::string Kept(const Uid& uid) const;

  // The directories below LogData, in the order in which they are created.
  std::vector<std::string> LogDirectories(const Uid& uid) const;

  // What names of children say; nullopt for a name that is not one of ours.
  static std::optional<std::uint64_t> ParseSegment(std::string_view name);
  // Of a path or a name that ends in b-<sequence number>.
  static std::optional<std::uint32_t> ParseBatch(std::string_view path);
  struct CursorName {
    Uid source;
    std::uint32_t generation;
  };
  static std::optional<CursorName> ParseCursor(std::string_view name);
  struct PartName {
    Uid source;
    std::uint64_t part;
  };
  static std::optional<PartName> ParsePart(std::string_view name);
  struct DedupName {
    std::int64_t epoch;
    std::uint64_t number;
  };
  static std::optional<DedupName> ParseDedup(std::string_view name);

 private:
  std::string root_;
};

// The path of the parent; "/" for a top-level path.
std::string ParentPath(std::string_view path);

}  // namespace postkeeper

#endif  // POSTKEEPER_ZKSTORE_LAYOUT_H_
