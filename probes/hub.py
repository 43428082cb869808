"""The Hugging Face hub when it is not there: a quick check before a download, and one sentence that names the files and how to get them."""
from collections.abc import Iterator

from probes.errors import UserError


def ensure(what: str, repository: str, files: str):
    """Nothing if one of `files` (separated by spaces) is in the local cache or the hub answers for `repository`; else a UserError.

    Asked before a download because huggingface_hub retries for half a minute, aloud, where there is no network.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache
    if any(isinstance(try_to_load_from_cache(repository, file), str) for file in files.split()):
        return
    try:
        HfApi().model_info(repository, timeout=10)
    except Exception as error:  # whichever HTTP client huggingface_hub uses has errors of its own
        raise unreachable(what, repository, files, error) from error


def unreachable(what: str, repository: str, files: str, error: BaseException) -> UserError:
    """Why `files` of `repository` could not be had, and what to do about it."""
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, RepositoryNotFoundError
    causes = list(_chain(error))
    if any(isinstance(cause, GatedRepoError) for cause in causes):
        return UserError(f"{what} needs an agreement: accept its terms at https://huggingface.co/{repository}, then run `hf auth login`.")
    if any(isinstance(cause, (RepositoryNotFoundError, HFValidationError)) for cause in causes):
        return UserError(f"{what} does not exist on the hub: there is no public repository {repository!r}.")
    if any(isinstance(cause, OfflineModeIsEnabled) for cause in causes):
        why = "HF_HUB_OFFLINE is set"
    elif any(isinstance(cause, HfHubHTTPError) for cause in causes):
        why = str(causes[-1]).strip().splitlines()[0][:160].rstrip(".: ")
    else:
        why = "no connection to the hub"
    return UserError(f"{what} is not on this machine and cannot be fetched ({why}): where there is a network run "
                     f"`hf download {repository} {files}`, then copy ~/.cache/huggingface/hub here and set HF_HUB_OFFLINE=1.")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
