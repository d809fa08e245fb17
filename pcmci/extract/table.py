"""From a data set's records to the store's table of videos."""

from __future__ import annotations

import numpy as np

from pcmci.cache.schema import VideoTable
from pcmci.extract.datasets.records import Dataset


def video_table(dataset: Dataset) -> VideoTable:
    """One row a video, labels as indices into the data set's label sets."""
    videos = dataset.videos
    activities = dataset.activity.names if dataset.activity else ()
    steps = dataset.steps.names if dataset.steps else ()
    place = {name: index for index, name in enumerate(activities)}
    column = {name: index for index, name in enumerate(steps)}
    activity = [-1 if video.activity is None else place[video.activity] for video in videos]
    occurs = np.zeros((len(videos), len(steps)), np.uint8)
    for row, video in enumerate(videos):
        occurs[row, [column[name] for name in video.steps]] = 1
    return VideoTable(
        ids=tuple(video.id for video in videos),
        splits=tuple(video.split for video in videos),
        sessions=tuple(video.session or video.id for video in videos),
        groups=tuple(video.group or video.id for video in videos),
        activity=np.array(activity, np.int32),
        steps=occurs,
    )
