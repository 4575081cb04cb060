#include "engine/model_files.h"

#include "base/error.h"
#include "choose/sampling_params.h"

namespace gemtp {

ModelFiles ModelFiles::open(const std::string& target_path, const std::string& drafter_path) {
  ModelFiles files;
  if (target_path.empty()) throw Error(ErrorKind::kArgument, "the path of the target is empty");
  files.target = GgufFile::open(target_path);
  files.target_config = read_config(*files.target);
  if (files.target_config.drafter)
    throw Error(ErrorKind::kModel,
                files.target->quoted_path() +
                    " holds a drafter; open its target and pass this file as the drafter");
  recommended_sampling(*files.target);  // a wrong value is said before anything is loaded
  if (drafter_path.empty()) return files;
  files.drafter = GgufFile::open(drafter_path);
  files.drafter_config = read_config(*files.drafter);
  if (!files.drafter_config.drafter)
    throw Error(ErrorKind::kModel, files.drafter->quoted_path() +
                                       " holds a target, not a drafter; its architecture must be "
                                       "gemma4-assistant");
  return files;
}

}  // namespace gemtp
