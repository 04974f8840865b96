"""The paper: nets, data sets, scores, trainings, published numbers and published files.

1. ``images``     image files -> arrays -> Caffe's inputs; labels as colours
2. ``datasets``   the records of the paper's data sets and nets, Mini-VOC, and folders of images and labels
3. ``nets``       the prototxts of the nets, and how their weights are initialized
4. ``fetch``      published files: the manifest, downloads, archives
5. ``scoring``    a net over a data set -> the paper's metrics
6. ``segment``    use of a trained net: an image in, labels out; export
7. ``train``      the paper's recipes, and trainings on custom data
8. ``reproduce``  from published files to the paper's numbers
9. ``folders``    where files that are not code are: those that come with this project, and downloads
"""
