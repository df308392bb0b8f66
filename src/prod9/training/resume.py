"""Where a resumed run takes its data up again."""

from typing import Any

from torch.utils.data import DataLoader

from prod9.config import Stage1Config, Stage2Config
from prod9.data.batches import set_epoch
from prod9.runtime.console import say
from prod9.runtime.distributed import is_main, of_main, world_size
from prod9.training.run_folder import ResumePoint, RunFolder


def start_where_it_ended(
    folder: RunFolder, config: Stage1Config | Stage2Config, loader: DataLoader[Any]
) -> ResumePoint:
    """Let ``loader`` begin at the first batch that the checkpoint has not seen; return that one.

    The order of an epoch is the same for every batch size and number of processes: with others
    than before, the first batch is the one with the first unseen item.

    Raises:
        Prod9Error: there is no whole checkpoint.
    """
    # A whole checkpoint is read for it: once on a machine of eight processes, not eight times.
    point = of_main(folder.resume_point() if is_main() else None)
    assert point is not None
    position, items = point.position, config.data.batch_size * world_size()
    batch = position.batches_of(items)
    # Workers fetch before Lightning tells them the epoch.
    set_epoch(loader, position.epochs, batch)
    if position.batches and position.batch_items != items:
        twice = position.batches * position.batch_items - batch * items
        say(
            f"epoch {position.epochs + 1} was begun with {position.batch_items} items per step and "
            f"goes on with {items}, at batch {batch + 1}; {twice} of its items are seen again"
        )
    return point
