// What a GPU has proved in its self-test, kept in the user's folder for caches: a file for each
// device, which holds for one GPU, driver and build.
#pragma once

#include <set>
#include <string>

namespace gemtp {

class Proofs {
 public:
  /// device: names the file. identity: the GPU and its driver. Reads the file; there are no proofs
  /// if it is missing, of something else, or damaged.
  Proofs(const std::string& device, const std::string& identity);

  bool has(const std::string& name) const { return names_.count(name) > 0; }
  void add(const std::string& name) { names_.insert(name); }
  /// Writes the file. A folder that cannot be written only means that the test is run again.
  void save() const noexcept;

 private:
  std::string contents() const;

  std::string path_;   // none: nothing is kept
  std::string owner_;  // the lines that a file must begin with
  std::set<std::string> names_;
};

}  // namespace gemtp
