#include "engine/model_files.h"

#include "backend/cpu/measuring_storage.h"
#include "base/error.h"
#include "choose/sampling_params.h"
#include "model/weights.h"

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
  recommended_sampling(*files.target);  // reports a wrong value before anything is loaded
  if (drafter_path.empty()) return files;
  files.drafter = GgufFile::open(drafter_path);
  files.drafter_config = read_config(*files.drafter);
  if (!files.drafter_config.drafter)
    throw Error(ErrorKind::kModel, files.drafter->quoted_path() +
                                       " holds a target, not a drafter; its architecture must be "
                                       "gemma4-assistant");
  return files;
}

void ModelFiles::check_pair() const {
  const Problems misfits = pair_problems(target_config, drafter_config);
  if (!misfits.empty())
    throw Error(ErrorKind::kModel, drafter->quoted_path() +
                                       ": the drafter does not fit the target: " +
                                       misfits.sentences()[0] + "; use the drafter made for it");
}

void check_tokenizer(const GgufFile& target, const Tokenizer& tokenizer, const Config& config) {
  if (tokenizer.vocab_size() != config.vocab)
    throw Error(ErrorKind::kFile,
                format("%s: the tokenizer has %d tokens, the embedding %lld rows; convert it again",
                       target.quoted_path().c_str(), tokenizer.vocab_size(),
                       static_cast<long long>(config.vocab)));
}

ExaminedFile examine(const std::shared_ptr<const GgufFile>& file) {
  ExaminedFile out;
  Problems problems;
  attempt(&problems, [&] {
    out.config = read_config(*file, &problems);
    if (!out.config.vocab) return;  // no weights at all
    MeasuringStorage storage;
    load_weights(file, out.config, storage, {}, &problems);
  });
  attempt(&problems, [&] { recommended_sampling(*file); });
  attempt(&problems, [&] {
    if (!file->has("tokenizer.ggml.model")) return;
    const Tokenizer tokenizer(*file);
    out.end_tokens = tokenizer.end_tokens();
    if (out.config.vocab && !out.config.drafter) check_tokenizer(*file, tokenizer, out.config);
  });
  out.problems = problems.sentences();
  return out;
}

}  // namespace gemtp
